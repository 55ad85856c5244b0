"""A copy of a SQLite database that others go on using. Everything here blocks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from voiceforge.errors import Unavailable


@dataclass(frozen=True, slots=True)
class NamedBlob:
    """A blob that a database refers to. sha256: in hexadecimal digits."""

    key: str
    sha256: str
    size_bytes: int


def copy_database(source: Path, target: Path) -> None:
    """As it is at one moment, into a new file. What is half uploaded is not in it: its bytes lie elsewhere.

    Raises:
        Unavailable: it cannot be read, or there is no room.
    """
    with _opened(source) as found, _opened(target) as made:
        found.backup(made)  # in one step: what is written meanwhile would have it begin anew
        made.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
        made.execute("DELETE FROM uploads")
        made.commit()


def blobs_of(database: Path) -> list[NamedBlob]:
    """Those of recordings that are kept.

    Raises:
        Unavailable
    """
    with _opened(database) as found:
        rows = found.execute(
            "SELECT blob_key, sha256, size_bytes FROM recordings WHERE state = 'stored' ORDER BY id"
        )
        return [NamedBlob(*row) for row in rows]


def revision_of(database: Path) -> str | None:
    """
    Raises:
        Unavailable: it is no such database, or damaged.
    """
    with _opened(database) as found:
        (verdict,) = found.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise Unavailable("the database is damaged")
        row = found.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise Unavailable(f"the database cannot be read or copied ({type(error).__name__})") from error
