"""Which tables are ours to compare: SQLite's full-text index comes with tables of its own."""

from __future__ import annotations

from collections.abc import Mapping

_SEARCH = "result_texts"


def ours(name: str | None, kind: str, parents: Mapping[str, str | None]) -> bool:
    if kind == "table":
        return name is not None and not name.startswith(_SEARCH)
    return not (kind == "index" and name == "ix_results_search")
