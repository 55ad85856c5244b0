"""Measured figures → JSON for `report.py`, and rows of a table for whoever ran the program.

Every program here ends in `Report.finish`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

_LIBRARIES = ("voiceforge", "onnxruntime", "moonshine-voice", "faster-whisper", "ctranslate2", "numpy")


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure is to reach."""

    value: float
    sense: Literal["at least", "at most"]

    def met_by(self, figure: float) -> bool:
        return figure >= self.value if self.sense == "at least" else figure <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.sense == 'at least' else '≤'} {self.value:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. reference, ours: as they are printed; "–" where there is none.

    met: None where nothing was promised.
    """

    figure: str
    reference: str
    ours: str
    goal: str = "–"
    met: bool | None = None


def row(
    figure: str, ours: float | None, unit: str = "", *, reference: str = "–", bound: Bound | None = None
) -> Row:
    """A row whose figure is one number; None: it could not be measured."""
    if ours is None:
        return Row(figure, reference, "not measured", str(bound) if bound else "–")
    shown = f"{significant(ours)} {unit}".strip()
    goal = f"{bound} {unit}".strip() if bound else "–"
    return Row(figure, reference, shown, goal, bound.met_by(ours) if bound else None)


def significant(value: float) -> str:
    """Three digits that mean something: 0.0123, 1.23, 12.3, 123, 12345."""
    if value == 0:
        return "0"
    digits = 3 - len(str(int(abs(value)))) if abs(value) >= 1 else 3
    return f"{value:.{max(0, digits)}f}"


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


@dataclass(slots=True)
class Report:
    """What one program found. details: everything measured, for whoever wants to look closer."""

    program: str
    rows: list[Row] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def finish(self, json_path: Path | None) -> None:
        """Print the rows; write the document if a path is given."""
        for line in markdown_table(self.rows):
            print(line)
        if json_path is None:
            return
        document = {
            "program": self.program,
            "command": shlex.join(["python", *_shown_command()]),
            "measured": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "rows": [asdict(r) for r in self.rows],
            "details": self.details,
        }
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"details: {json_path}", file=sys.stderr)


def markdown_table(rows: Sequence[Row]) -> list[str]:
    lines = ["| figure | reference, same run | ours | to reach | |", "| --- | --- | --- | --- | --- |"]
    for r in rows:
        mark = {True: "yes", False: "**no**", None: ""}[r.met]
        lines.append(f"| {r.figure} | {r.reference} | {r.ours} | {r.goal} | {mark} |")
    return lines


def parser(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """What every program takes. rounds: how often it measures unless told otherwise."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured there")
    made.add_argument(
        "--rounds", type=_positive, default=rounds, help="medians of so many (default %(default)s)"
    )
    made.add_argument(
        "--speech",
        type=Path,
        metavar="FOLDER",
        default=os.environ.get("SPEECH_DIR") or None,
        help="recordings with a manifest.jsonl (default: $SPEECH_DIR, "
        "else the two clips of the moonshine-voice wheel)",
    )
    return made


def machine() -> dict[str, Any]:
    """Where and with what it was measured; names nobody's host."""
    import psutil

    libraries: dict[str, str | None] = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = version(name)
        except PackageNotFoundError:
            libraries[name] = None
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": libraries,
        "load_before": [round(x, 2) for x in os.getloadavg()],
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _shown_command() -> list[str]:
    """As a reader would type it: without the folders of this machine."""
    program = f"benchmarks/{Path(sys.argv[0]).name}"
    shown: list[str] = []
    for argument in sys.argv[1:]:
        flag, equals, value = argument.partition("=")
        path = value if equals else argument
        short = "…/" + Path(path).name if Path(path).is_absolute() else path
        shown.append(f"{flag}={short}" if equals else short)
    return [program, *shown]
