"""What many clients get out of one machine, against the bare engine in a loop, side by side in one run.

Two engines, each with its own reference:

  whisper   Whisper tiny.en with made-up weights (synthetic_whisper.py), int8, beam 5. Reference:
            faster-whisper's WhisperModel.transcribe on the file, one call after another, on all cores.
            With --peer-env also wyoming-faster-whisper on the same model, driven by the `wyoming` library.
  embedded  the embedded model. Reference: the engine alone on windows that have been cut before, one at a
            time on every core: no file is read, no speech is looked for, nothing is queued.

All are loaded once and take turns, a reference turn before and after each of ours; figures are medians over
the rounds. Loaded but idle, none uses CPU, so they do not disturb each other. Clients are a process of their
own on the same machine, so what they take is counted against the server. No answer comes from a cache.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from figures import Bound, Report, Row, median, parser, row, significant
from peer_wyoming import peer
from processes import environment, serving
from recordings import write_recording
from synthetic_whisper import SIZES, build
from traffic import client, closed_loop, one_clip, prepare, sender
from watches import TreeWatch, tree_cpu_s

from voiceforge.services.samples import sample_recordings

_ENGINES = ("whisper", "embedded")
_BEAM = 5
_PEER_CLIENTS = (1, 16)
_MEMORY_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Turn:
    """latencies_s: of the requests that were answered, one by one. cpu_s: of whoever did the work."""

    audio_s: float
    wall_s: float
    cpu_s: float
    latencies_s: tuple[float, ...]
    failures: int = 0

    @property
    def speed(self) -> float:
        """Audio seconds per second."""
        return self.audio_s / self.wall_s

    @property
    def speed_per_cpu(self) -> float:
        return self.audio_s / self.cpu_s


TakeTurn = Callable[[int, int], Turn]
"""(clients, count of requests) → what came of it."""


@dataclass(slots=True)
class Found:
    """Turns of all rounds. loops: of the reference; ours, theirs: by number of clients, and beside each of
    them the reference's speed and speed per CPU-second around it."""

    loops: list[Turn]
    ours: dict[int, list[tuple[Turn, float, float]]]
    theirs: dict[int, list[tuple[Turn, float, float]]]


def main() -> None:
    made = parser(__doc__, rounds=3)
    made.add_argument("--engines", nargs="+", choices=_ENGINES, default=list(_ENGINES))
    made.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    made.add_argument(
        "--per-client", type=int, default=2, help="requests of each client in a turn (default %(default)s)"
    )
    made.add_argument(
        "--at-least",
        type=int,
        default=12,
        help="requests of a turn, however few clients (default 12)",
    )
    made.add_argument("--calls", type=int, default=8, help="of the reference per turn (default %(default)s)")
    made.add_argument("--size", choices=sorted(SIZES), default="tiny.en")
    made.add_argument("--tokens", type=int, default=100, help="text tokens per window (default 100)")
    made.add_argument("--file", type=Path, help="for whisper: at most one window of speech, 16 bit mono WAV")
    made.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        help="for embedded: length of the recording (default 60)",
    )
    made.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE", help="of the server")
    made.add_argument(
        "--peer-env", type=Path, metavar="FOLDER", help="environment of the peer; made where it is missing"
    )
    made.add_argument("--run-loop", choices=_ENGINES, help="the reference; a turn per line of input")
    made.add_argument("--model", type=Path, help="with --run-loop whisper")
    args = made.parse_args()
    args.file = args.file or sample_recordings()[0]
    if args.run_loop:
        _answer_turns(_whisper_loop(args) if args.run_loop == "whisper" else _embedded_loop(args))
        return
    report = Report("throughput")
    with tempfile.TemporaryDirectory() as folder:
        for engine in args.engines:
            (_whisper if engine == "whisper" else _embedded)(args, report, Path(folder))
    report.finish(args.json)


# -- the two comparisons


def _whisper(args: Namespace, report: Report, folder: Path) -> None:
    threads = len(os.sched_getaffinity(0))
    model = build(folder / "model", size=args.size, tokens=args.tokens)
    settings = {"VOICEFORGE_MODEL": str(model), "VOICEFORGE_ENGINE__THREADS": str(threads)}
    loop = ["--run-loop", "whisper", "--model", str(model), "--file", str(args.file)]
    with ExitStack() as stack:
        told: dict[str, Any] = {"threads": threads, "beam": _BEAM, "tokens": args.tokens}
        theirs: TakeTurn | None = None
        watches: dict[str, TreeWatch] = {}
        if args.peer_env:
            other = stack.enter_context(
                peer(args.peer_env, model=model, recording=args.file, threads=threads, beam=_BEAM)
            )
            theirs = stack.enter_context(_told_turns(other.client, one_clip(args.file).seconds, other.pid))
            watches["peer"] = TreeWatch(other.pid, _MEMORY_EVERY_S)
        found = _compare(args, stack, folder / "whisper", settings, args.file, loop, theirs, watches)
    title = f"whisper_ct2 ({args.size}, made up)"
    report.rows += _rows(title, found, goal=lambda clients: 1.25 if clients == 16 else 1.0)
    report.rows += _peer_rows(found) + _memory_rows(watches)
    report.details["whisper"] = told | _told(found) | {"memory": _memory(watches)}


def _embedded(args: Namespace, report: Report, folder: Path) -> None:
    recording = write_recording(folder, args.speech, args.seconds)
    watches: dict[str, TreeWatch] = {}
    loop = ["--run-loop", "embedded", "--file", str(recording.path)]
    with ExitStack() as stack:
        found = _compare(args, stack, folder / "embedded", {}, recording.path, loop, None, watches)
    report.rows += _rows(
        f"the embedded engine, recordings of {recording.seconds:.0f} s",
        found,
        goal=lambda clients: {1: 0.95, 16: 1.15}.get(clients),
    )
    report.rows += _memory_rows(watches)
    report.details["embedded"] = {"audio_s": recording.seconds} | _told(found) | {"memory": _memory(watches)}


def _compare(
    args: Namespace,
    stack: ExitStack,
    data_dir: Path,
    settings: dict[str, str],
    file: Path,
    loop_arguments: Sequence[str],
    theirs: TakeTurn | None,
    watches: dict[str, TreeWatch],
) -> Found:
    chosen = dict(setting.split("=", 1) for setting in args.setting)
    env = environment(data_dir, **settings, **chosen)
    seconds = one_clip(file).seconds
    command = [sys.executable, __file__, *loop_arguments]
    loop = stack.enter_context(_told_turns(command, seconds, None))
    server = stack.enter_context(serving(env))
    watches["ours"] = TreeWatch(server.pid, _MEMORY_EVERY_S)
    for watch in watches.values():
        watch.start()
        stack.callback(watch.stop)
    ours = _server_turns(server.url, server.pid, file)

    def reference() -> Turn:
        return loop(1, args.calls)

    loop(1, 2), ours(2, 4)
    if theirs is not None:
        theirs(1, 2)
    found = Found(
        [], {c: [] for c in args.clients}, {c: [] for c in args.clients if theirs and c in _PEER_CLIENTS}
    )
    for number in range(args.rounds):
        before = reference()
        found.loops.append(before)
        for clients in args.clients:
            count = max(args.at_least, clients * args.per_client)
            for turn, into in ((ours, found.ours), (theirs, found.theirs)):
                if turn is None or clients not in into:
                    continue
                taken = turn(clients, count)
                after = reference()
                found.loops.append(after)
                around = (
                    statistics.fmean((before.speed, after.speed)),
                    statistics.fmean((before.speed_per_cpu, after.speed_per_cpu)),
                )
                into[clients].append((taken, *around))
                before = after
                print(
                    f"round {number + 1}/{args.rounds}, {'ours' if turn is ours else 'peer'}, "
                    f"{clients} clients: {taken.speed:.1f} s/s, {taken.speed / around[0]:.2f} of the loop",
                    file=sys.stderr,
                )
    return found


# -- who takes turns


def _server_turns(url: str, pid: int, file: Path) -> TakeTurn:
    requests = prepare([one_clip(file)], ["openai"])

    async def run(clients: int, count: int) -> Turn:
        async with client(url) as http:
            cpu_before = tree_cpu_s(pid)
            done = await closed_loop(sender(http), requests, clients=clients, count=count)
            cpu_s = tree_cpu_s(pid) - cpu_before
        latencies = tuple(outcome.latency_s for outcome in done.answered)
        return Turn(done.audio_s, done.wall_s, cpu_s, latencies, sum(done.failures.values()))

    return lambda clients, count: asyncio.run(run(clients, count))


@contextmanager
def _told_turns(command: Sequence[str], seconds: float, pid: int | None) -> Iterator[TakeTurn]:
    """Turns of a program that takes them by line. pid: who does the work; None: the program itself says
    what CPU time it took."""
    with subprocess.Popen(list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        tell, hear = process.stdin, process.stdout

        def turn(clients: int, count: int) -> Turn:
            cpu_before = tree_cpu_s(pid) if pid else 0.0
            tell.write(json.dumps({"clients": clients, "count": count}) + "\n")
            tell.flush()
            told = json.loads(hear.readline())
            cpu_s = tree_cpu_s(pid) - cpu_before if pid else told["cpu_s"]
            latencies = tuple(told["latencies_s"])
            return Turn(len(latencies) * seconds, told["wall_s"], cpu_s, latencies, told.get("failures", 0))

        try:
            yield turn
        finally:
            tell.close()


def _answer_turns(run: Callable[[int], list[float]]) -> None:
    """run: does that many files and returns the seconds each took."""
    for line in sys.stdin:
        cpu_before, began = time.process_time(), time.perf_counter()
        latencies_s = run(json.loads(line)["count"])
        wall_s = time.perf_counter() - began
        cpu_s = time.process_time() - cpu_before
        print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, "latencies_s": latencies_s}), flush=True)


def _whisper_loop(args: Namespace) -> Callable[[int], list[float]]:
    from faster_whisper import WhisperModel

    threads = len(os.sched_getaffinity(0))
    whisper = WhisperModel(str(args.model), device="cpu", compute_type="int8", cpu_threads=threads)

    def run(count: int) -> list[float]:
        latencies_s = []
        for _ in range(count):
            began = time.perf_counter()
            segments, _info = whisper.transcribe(str(args.file), beam_size=_BEAM)
            assert sum(len(segment.text) for segment in segments)
            latencies_s.append(time.perf_counter() - began)
        return latencies_s

    return run


def _embedded_loop(args: Namespace) -> Callable[[int], list[float]]:
    from in_process import EMBEDDED_MODEL, embedded_model_folder, windows_of
    from recordings import samples_of

    from voiceforge.speech.engines.base import DecodeOptions
    from voiceforge.speech.engines.moonshine_ort import MoonshineOrt
    from voiceforge.speech.transcript.types import ModelRef

    cores = len(os.sched_getaffinity(0))
    engine = MoonshineOrt(
        embedded_model_folder(), ModelRef(id=EMBEDDED_MODEL, revision="benchmark"), parallel_decodes=cores
    )
    windows = windows_of(samples_of(args.file), engine.capabilities.best_window_s)

    def run(count: int) -> list[float]:
        began = time.perf_counter()
        left = [(number, window) for number in range(count) for window in windows][::-1]
        ends = [0.0] * count

        def one_core() -> None:
            while True:
                try:
                    number, window = left.pop()
                except IndexError:
                    return
                engine.decode([window], DecodeOptions())
                ends[number] = max(ends[number], time.perf_counter() - began)

        threads = [threading.Thread(target=one_core) for _ in range(cores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [end - before for end, before in zip(ends, [0.0, *ends], strict=False)]

    return run


# -- the table


def _rows(title: str, found: Found, goal: Callable[[int], float | None]) -> list[Row]:
    loop = f"{significant(median([turn.speed for turn in found.loops]))} audio s/s"
    rows: list[Row] = []
    for clients, turns in found.ours.items():
        least = goal(clients)
        who = _who(clients)
        rows.append(
            row(
                f"{title}: throughput against the loop, {who}" if not rows else f"… {who}",
                median([turn.speed / speed for turn, speed, _ in turns]),
                reference=loop,
                bound=Bound(least, "at least") if least else None,
            )
        )
        rows.append(
            row(
                f"… {who}, per CPU-second",
                median([turn.speed_per_cpu / per_cpu for turn, _, per_cpu in turns]),
            )
        )
        failures = sum(turn.failures for turn, _, _ in turns)
        if failures:
            rows.append(row(f"… {who}, requests that failed", failures, bound=Bound(0, "at most")))
    return rows


def _who(clients: int) -> str:
    return "one client" if clients == 1 else f"{clients} clients"


def _peer_rows(found: Found) -> list[Row]:
    return [
        row(
            f"wyoming-faster-whisper, throughput against the loop, {_who(clients)}",
            median([turn.speed / speed for turn, speed, _ in turns]),
        )
        for clients, turns in found.theirs.items()
    ]


def _memory_rows(watches: dict[str, TreeWatch]) -> list[Row]:
    peaks = {name: _peak_mb(watch) for name, watch in watches.items()}
    reference = f"wyoming-faster-whisper {peaks['peer']:.0f} MB" if "peer" in peaks else "–"
    return [row("… memory at most, all processes of the server", peaks["ours"], "MB", reference=reference)]


def _peak_mb(watch: TreeWatch) -> float:
    return max(sample.rss_mb for sample in watch.samples)


def _memory(watches: dict[str, TreeWatch]) -> dict[str, Any]:
    return {
        name: {
            "rss_at_first_mb": watch.samples[0].rss_mb,
            "rss_peak_mb": _peak_mb(watch),
            "pss_peak_mb": max(sample.pss_mb for sample in watch.samples),
        }
        for name, watch in watches.items()
    }


def _told(found: Found) -> dict[str, Any]:
    def side(turns: dict[int, list[tuple[Turn, float, float]]]) -> dict[str, Any]:
        return {
            f"{clients} clients": [
                {
                    **{key: value for key, value in asdict(turn).items() if key != "latencies_s"},
                    "audio_s_per_s": turn.speed,
                    "of_the_loop": turn.speed / speed,
                    "of_the_loop_per_cpu": turn.speed_per_cpu / per_cpu,
                    "latency_p50_s": median(turn.latencies_s) if turn.latencies_s else None,
                }
                for turn, speed, per_cpu in taken
            ]
            for clients, taken in turns.items()
        }

    return {
        "loop_audio_s_per_s": [turn.speed for turn in found.loops],
        "loop_audio_s_per_cpu_s": [turn.speed_per_cpu for turn in found.loops],
        "ours": side(found.ours),
        "peer": side(found.theirs),
    }


if __name__ == "__main__":
    main()
