"""JSON that the other programs wrote → the figures in docs/benchmarks.md, between its two markers.

    python benchmarks/report.py build/bench [--page docs/benchmarks.md]

Text outside the markers is left alone. A program without a file there keeps no place in the page, so that
a page never mixes figures of different days.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from figures import Row, markdown_table

BEGIN = "<!-- figures: written by benchmarks/report.py -->"
END = "<!-- end of figures -->"

_TITLES = {
    "engine": "The embedded engine",
    "accuracy": "Accuracy",
    "path": "The whole path",
    "decode": "Decoding",
    "http_overhead": "What HTTP costs",
    "footprint": "Start, memory, disk",
    "long_file": "Long recordings",
    "throughput": "Many clients, one machine",
    "load": "Load",
    "soak": "Soak",
    "cache_hits": "Earlier results",
    "isolation": "One beside the others",
    "listening": "Recordings in processes of their own",
    "resume": "Going on after a crash",
    "whisper_batches": "Whisper in batches",
    "streaming": "Live streams",
    "auth_overhead": "Who calls",
    "rate_limits": "Limits",
    "jobs_scale": "Many jobs",
    "long_job": "A job of three hours",
}
"""In the order of the page; the keys are the programs' names and those of their files."""


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path, help="holds engine.json, path.json, …")
    made.add_argument("--page", type=Path, default=Path("docs/benchmarks.md"))
    args = made.parse_args()
    documents = {name: path for name in _TITLES if (path := args.folder / f"{name}.json").is_file()}
    if not documents:
        raise SystemExit(f"{args.folder} holds no figures")
    for name in _TITLES.keys() - documents.keys():
        print(f"{name}: not measured", file=sys.stderr)
    found = {name: _read(name, path) for name, path in documents.items()}
    args.page.write_text(_with_figures(args.page.read_text(encoding="utf-8"), found), encoding="utf-8")


def _read(name: str, path: Path) -> dict[str, Any]:
    document: Any = json.loads(path.read_text(encoding="utf-8"))
    if name == "decode":  # writes bare figures: one entry per format
        return {"command": "python benchmarks/decode.py", "table": _decode_table(document)}
    rows = [Row(**row) for row in document["rows"]]
    return {**document, "table": markdown_table(rows)}


def _with_figures(page: str, found: dict[str, dict[str, Any]]) -> str:
    before, begin, rest = page.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the page lacks the markers {BEGIN} and {END}")
    lines = [BEGIN, "", *_machine(found)]
    for name, document in found.items():
        lines += [f"### {_TITLES[name]}", "", f"`{document['command']}`", "", *document["table"], ""]
    return before + "\n".join(lines) + "\n" + END + after


def _machine(found: dict[str, dict[str, Any]]) -> list[str]:
    """One sentence, from the newest of the documents that say where they come from."""
    told = [document for document in found.values() if "machine" in document]
    if not told:
        return []
    newest = max(told, key=lambda document: str(document["measured"]))
    where = newest["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in where["libraries"].items() if version)
    return [
        f"Measured {newest['measured']}: {where['cpu']}, {where['cores']} cores, {where['memory_gib']} GiB, "
        f"{where['system']}, Python {where['python']}; {libraries}.",
        "",
    ]


def _decode_table(entries: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| format | Hz, channels | soundfile + soxr | PyAV + soxr | ours | of the best |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for entry in entries:
        taken = entry["cpu_ms"]
        cells = [f"{taken[name]:.1f} ms" if name in taken else "–" for name in ("soundfile", "pyav", "ours")]
        lines.append(
            f"| {entry['format']} | {entry['sample_rate_hz']}, {entry['channels']} | "
            f"{' | '.join(cells)} | {entry['of_best']:.2f} |"
        )
    return lines


if __name__ == "__main__":
    main()
