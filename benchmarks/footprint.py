"""What VoiceForge takes before and beside its work: start-up times, idle memory, disk.

Start of `serve` to ready is from the start of the process to the first 200 of /health/ready, with the
embedded model loaded. Memory is of the whole process tree. Cold means a fresh process; the files are in
the page cache, as they are on any machine in use.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import Bound, Report, median, parser, row
from processes import Cost, environment, run, serving, tree_rss_mb, voiceforge

from voiceforge.services.samples import sample_recordings

_HELP_ROUNDS = 10
_ENVIRONMENT_TOOLS = ("pip", "setuptools", "pkg_resources", "_distutils_hack")


def main() -> None:
    made = parser(__doc__, rounds=5)
    made.add_argument(
        "--idle", type=float, default=60.0, help="seconds until memory is read again (default %(default)s)"
    )
    made.add_argument(
        "--venv", type=Path, metavar="FOLDER", help="a fresh environment with only the base installed"
    )
    args = made.parse_args()
    report = Report("footprint")
    with tempfile.TemporaryDirectory() as folder:
        env = environment(Path(folder) / "data")
        _help(report, env)
        _cold_transcribe(report, env, args.rounds)
        _server(report, env, args.rounds, args.idle)
    if args.venv:
        _installed(report, args.venv)
    report.finish(args.json)


def _help(report: Report, env: dict[str, str]) -> None:
    costs = _again("voiceforge --help", [*voiceforge(), "--help"], env, _HELP_ROUNDS)
    report.details["help"] = _told(costs)
    report.rows.append(
        row("`voiceforge --help`", median([c.wall_s for c in costs]), "s", bound=Bound(0.3, "at most"))
    )


def _cold_transcribe(report: Report, env: dict[str, str], rounds: int) -> None:
    clip = sample_recordings()[0]
    costs = _again("cold transcribe", [*voiceforge(), "transcribe", str(clip)], env, rounds)
    report.details["cold_transcribe"] = _told(costs)
    report.rows += [
        row(
            "`voiceforge transcribe` of 10 s of speech, cold",
            median([c.wall_s for c in costs]),
            "s",
            bound=Bound(1.5, "at most"),
        ),
        row("… its CPU time", median([c.cpu_s for c in costs]), "s"),
        row("… its peak memory", median([c.peak_rss_mb for c in costs]), "MB"),
    ]


def _server(report: Report, env: dict[str, str], rounds: int, idle_s: float) -> None:
    ready, listening, at_once = [], [], []
    later: float | None = None
    for number in range(rounds):
        print(f"serve, round {number + 1}/{rounds}", file=sys.stderr)
        with serving(env) as server:
            ready.append(server.ready_s)
            listening.append(server.listening_s)
            at_once.append(tree_rss_mb(server.pid))
            if number == rounds - 1:
                time.sleep(idle_s)
                later = tree_rss_mb(server.pid)
    report.details["serve"] = {
        "ready_s": ready,
        "listening_s": listening,
        "rss_when_ready_mb": at_once,
        "rss_idle_mb": later,
        "idle_s": idle_s,
    }
    report.rows += [
        row("start of `serve` to ready", median(ready), "s", bound=Bound(2.0, "at most")),
        row("… to the first answer", median(listening), "s"),
        row("memory of the server, model loaded, when ready", median(at_once), "MB"),
        row(f"… after {idle_s:g} s without requests", later, "MB", bound=Bound(250, "at most")),
    ]


def _installed(report: Report, venv: Path) -> None:
    """Blocks on disk, as `du` counts; hard-linked files once. What every new environment brings is told
    apart: it is not ours, and Pythons differ in it."""
    seen: set[tuple[int, int]] = set()
    total = tools = 0
    for folder, _folders, names in os.walk(venv):
        of_python = any(part.startswith(_ENVIRONMENT_TOOLS) for part in Path(folder).parts)
        for name in names:
            stat = (Path(folder) / name).lstat()
            if (stat.st_dev, stat.st_ino) in seen:
                continue
            seen.add((stat.st_dev, stat.st_ino))
            total += stat.st_blocks * 512
            tools += stat.st_blocks * 512 * of_python
    report.details["installed_bytes"] = total
    report.details["of_that_pip_and_setuptools_bytes"] = tools
    report.rows += [
        row("installed base, on disk", (total - tools) / 1e9, "GB", bound=Bound(0.5, "at most")),
        row("… with the pip of a fresh environment", total / 1e9, "GB"),
    ]


def _again(what: str, command: list[str], env: dict[str, str], rounds: int) -> list[Cost]:
    run(command, env)  # byte code and page cache
    costs = []
    for number in range(rounds):
        print(f"{what}, round {number + 1}/{rounds}", file=sys.stderr)
        costs.append(run(command, env))
    return costs


def _told(costs: list[Cost]) -> dict[str, Any]:
    return {
        "wall_s": [c.wall_s for c in costs],
        "cpu_s": [c.cpu_s for c in costs],
        "peak_rss_mb": [c.peak_rss_mb for c in costs],
    }


if __name__ == "__main__":
    main()
