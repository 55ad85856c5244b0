"""What many clients get out of one machine, against the bare engine in a loop, side by side in one run.

Two engines, each with references of its own:

  whisper   Whisper tiny.en with made-up weights (synthetic_whisper.py), int8, beam 5. Reference:
            faster-whisper's WhisperModel.transcribe on the file, one call after another, on all cores.
            With --peer-env also wyoming-faster-whisper on the same model, driven by the `wyoming` library.
  embedded  the embedded model. References, both on windows that have been cut before, one at a time on every
            core, so that no file is read, no speech is looked for, nothing is queued: the model's own .ort
            files driven by onnxruntime (ort_files.py), and our engine. Beside them, what reading, looking
            for speech and laying out text add: all of it in one process, nothing batched.

All are loaded once and take turns, a turn of each reference before and after each of ours; figures are
medians over the rounds. Loaded but idle, none uses CPU, so they do not disturb each other. Clients are a
process of their own on the same machine, so what they take is counted against the server. No answer comes
from a cache.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from figures import Bound, Report, Row, median, parser, row, significant
from numpy.typing import NDArray
from peer_wyoming import peer
from processes import environment, serving
from recordings import write_recording
from synthetic_whisper import SIZES, build
from traffic import client, closed_loop, one_clip, prepare, sender
from watches import TreeSample, tree_cpu_s, watched

from voiceforge.services.samples import sample_recordings
from voiceforge.speech.engines.base import Engine

_ENGINES = ("whisper", "embedded")
_OURS = "ours"
_WHISPER_LOOP = "faster-whisper's loop"
_EMBEDDED_LOOPS = {"the .ort files' loop": "files", "our engine's loop": "engine"}
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


@dataclass(frozen=True, slots=True)
class Taken:
    """A turn, and the references' turns before and after it, by name."""

    turn: Turn
    around: Mapping[str, tuple[Turn, Turn]]

    def of(self, reference: str) -> float:
        return self.turn.speed / statistics.fmean(turn.speed for turn in self.around[reference])

    def of_per_cpu(self, reference: str) -> float:
        around = self.around[reference]
        return self.turn.speed_per_cpu / statistics.fmean(turn.speed_per_cpu for turn in around)


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who is measured against the reference, and with how many clients. pid: of its server, if it is one."""

    name: str
    turn: TakeTurn
    clients: Sequence[int]
    pid: int | None = None


@dataclass(slots=True)
class Found:
    """loops: the turns of each reference. taken: by contestant and clients. memory: by contestant."""

    loops: dict[str, list[Turn]]
    taken: dict[str, dict[int, list[Taken]]]
    memory: dict[str, list[TreeSample]]


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
    made.add_argument("--run-loop", choices=list(_LOOPS), help="a turn per line of input")
    made.add_argument("--model", type=Path, help="with --run-loop whisper")
    args = made.parse_args()
    args.file = args.file or sample_recordings()[0]
    if args.run_loop:
        _answer_turns(_LOOPS[args.run_loop](args))
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
    seconds = one_clip(args.file).seconds
    with ExitStack() as stack:
        loop = _program(
            stack, seconds, "--run-loop", "whisper", "--model", str(model), "--file", str(args.file)
        )
        contestants = [_ours(args, stack, folder / "whisper", settings, args.file)]
        if args.peer_env:
            other = stack.enter_context(
                peer(args.peer_env, model=model, recording=args.file, threads=threads, beam=_BEAM)
            )
            turn = stack.enter_context(_told_turns(other.client, seconds, other.pid))
            contestants.append(Contestant("wyoming-faster-whisper", turn, _PEER_CLIENTS, other.pid))
        found = _compare(args, {_WHISPER_LOOP: loop}, contestants)
    title = f"whisper_ct2 ({args.size}, made up)"
    report.rows += _rows(title, found, goal=lambda clients: 1.25 if clients == 16 else 1.0)
    report.details["whisper"] = {"threads": threads, "beam": _BEAM, "tokens": args.tokens} | _told(found)


def _embedded(args: Namespace, report: Report, folder: Path) -> None:
    recording = write_recording(folder, args.speech, args.seconds)
    file = str(recording.path)
    with ExitStack() as stack:
        loops = {
            name: _program(stack, recording.seconds, "--run-loop", loop, "--file", file)
            for name, loop in _EMBEDDED_LOOPS.items()
        }
        path = _program(stack, recording.seconds, "--run-loop", "path", "--file", file)
        contestants = [
            _ours(args, stack, folder / "embedded", {}, recording.path),
            Contestant("from file to text in one process, window by window on every core", path, [1]),
        ]
        found = _compare(args, loops, contestants)
    title = f"the embedded engine, recordings of {recording.seconds:.0f} s"
    report.rows += _rows(title, found, goal=lambda clients: {1: 0.95, 16: 1.15}.get(clients))
    report.details["embedded"] = {"audio_s": recording.seconds} | _told(found)


def _compare(args: Namespace, loops: Mapping[str, TakeTurn], contestants: Sequence[Contestant]) -> Found:
    for warm_up in (*loops.values(), *(one.turn for one in contestants)):
        warm_up(2, 4)
    found = Found(
        {name: [] for name in loops},
        {one.name: {clients: [] for clients in one.clients} for one in contestants},
        {},
    )
    with ExitStack() as stack:
        for one in contestants:
            if one.pid is not None:
                found.memory[one.name] = stack.enter_context(watched(one.pid, _MEMORY_EVERY_S)).samples
        for number in range(args.rounds):
            _take_loops(found, loops, args.calls)
            for one, clients in _order(contestants):
                before = {name: turns[-1] for name, turns in found.loops.items()}
                turn = one.turn(clients, max(args.at_least, clients * args.per_client))
                _take_loops(found, loops, args.calls)
                taken = Taken(turn, {name: (before[name], found.loops[name][-1]) for name in loops})
                found.taken[one.name][clients].append(taken)
                ratios = ", ".join(f"{taken.of(name):.2f} of {name}" for name in loops)
                told = f"{one.name}, {_who(clients)}: {turn.speed:.1f} s/s, {ratios}"
                print(f"round {number + 1}/{args.rounds}, {told}", file=sys.stderr)
    return found


def _take_loops(found: Found, loops: Mapping[str, TakeTurn], calls: int) -> None:
    for name, loop in loops.items():
        found.loops[name].append(loop(1, calls))


def _order(contestants: Sequence[Contestant]) -> list[tuple[Contestant, int]]:
    """With few clients first, the contestants beside each other."""
    return sorted(
        ((one, clients) for one in contestants for clients in one.clients), key=lambda entry: entry[1]
    )


# -- who takes turns


def _ours(
    args: Namespace, stack: ExitStack, data_dir: Path, settings: dict[str, str], file: Path
) -> Contestant:
    chosen = dict(setting.split("=", 1) for setting in args.setting)
    server = stack.enter_context(serving(environment(data_dir, **settings, **chosen)))
    return Contestant(_OURS, _server_turns(server.url, server.pid, file), args.clients, server.pid)


def _program(stack: ExitStack, seconds: float, *arguments: str) -> TakeTurn:
    """Turns of this program, run once more with `arguments`."""
    return stack.enter_context(_told_turns([sys.executable, __file__, *arguments], seconds, None))


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


def _engine_loop(args: Namespace) -> Callable[[int], list[float]]:
    from in_process import windows_of
    from recordings import samples_of

    from voiceforge.speech.engines.base import DecodeOptions

    engine, cores = _embedded_engine()
    windows = windows_of(samples_of(args.file), engine.capabilities.best_window_s)
    return _on_every_core(lambda window: engine.decode([window], DecodeOptions()), windows, cores)


def _files_loop(args: Namespace) -> Callable[[int], list[float]]:
    from in_process import embedded_model_folder, windows_of
    from ort_files import OrtFiles
    from recordings import samples_of

    engine, cores = _embedded_engine()
    windows = windows_of(samples_of(args.file), engine.capabilities.best_window_s)
    engine.close()
    files = OrtFiles(embedded_model_folder())
    return _on_every_core(lambda window: files.texts([window]), windows, cores)


def _on_every_core(
    decode: Callable[[NDArray[np.float32]], object], windows: Sequence[NDArray[np.float32]], cores: int
) -> Callable[[int], list[float]]:
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
                decode(window)
                ends[number] = max(ends[number], time.perf_counter() - began)

        threads = [threading.Thread(target=one_core) for _ in range(cores)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [end - before for end, before in zip(ends, [0.0, *ends], strict=False)]

    return run


def _path_loop(args: Namespace) -> Callable[[int], list[float]]:
    from in_process import transcribe_file

    from voiceforge.speech.engines.batcher import Batcher
    from voiceforge.speech.pipeline.listen import LocalListener

    engine, cores = _embedded_engine()
    batcher, listener = Batcher(_OneByOne(engine)), LocalListener()

    def one(_number: int) -> float:
        began = time.perf_counter()
        assert transcribe_file(args.file, batcher, listener).text
        return time.perf_counter() - began

    def run(count: int) -> list[float]:
        # One more than cores: somebody looks for speech while the engine is busy on all of them.
        with ThreadPoolExecutor(cores + 1) as threads:
            return list(threads.map(one, range(count)))

    return run


class _OneByOne:
    """An engine that never sees two windows at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.model = engine.model
        self.capabilities = replace(engine.capabilities, max_batch_rows=1)
        self.decode = engine.decode
        self.close = engine.close


def _embedded_engine() -> tuple[Engine, int]:
    """The engine for all cores, and how many those are."""
    from in_process import EMBEDDED_MODEL, embedded_model_folder

    from voiceforge.speech.engines.moonshine_ort import MoonshineOrt
    from voiceforge.speech.transcript.types import ModelRef

    cores = len(os.sched_getaffinity(0))
    model = ModelRef(id=EMBEDDED_MODEL, revision="benchmark")
    return MoonshineOrt(embedded_model_folder(), model, parallel_decodes=cores), cores


_LOOPS = {"whisper": _whisper_loop, "engine": _engine_loop, "files": _files_loop, "path": _path_loop}


# -- the table


def _rows(title: str, found: Found, goal: Callable[[int], float | None]) -> list[Row]:
    rows: list[Row] = []
    for name, turns in found.loops.items():
        speed = f"{significant(median([turn.speed for turn in turns]))} audio s/s"
        per_cpu = f"{significant(median([turn.speed_per_cpu for turn in turns]))} audio s/CPU s"
        for clients, taken in found.taken[_OURS].items():
            least = goal(clients)
            rows.append(
                row(
                    f"{'…' if rows else f'{title}:'} throughput against {name}, {_who(clients)}",
                    median([one.of(name) for one in taken]),
                    reference=speed,
                    bound=Bound(least, "at least") if least else None,
                )
            )
            ratio = median([one.of_per_cpu(name) for one in taken])
            rows.append(row(f"… {_who(clients)}, per CPU-second", ratio, reference=per_cpu))
    for clients, taken in found.taken[_OURS].items():
        if failures := sum(one.turn.failures for one in taken):
            rows.append(row(f"… {_who(clients)}, requests that failed", failures, bound=Bound(0, "at most")))
    last = list(found.loops)[-1]
    for name, by_clients in found.taken.items():
        if name != _OURS:
            rows += [
                row(f"… {name}, {_who(clients)}, against {last}", median([one.of(last) for one in taken]))
                for clients, taken in by_clients.items()
            ]
    others = [f"{name} {_peak_mb(found, name):.0f} MB" for name in found.memory if name != _OURS]
    memory = row(
        "… memory at most, all processes", _peak_mb(found, _OURS), "MB", reference=", ".join(others) or "–"
    )
    return [*rows, memory]


def _who(clients: int) -> str:
    return "one client" if clients == 1 else f"{clients} clients"


def _peak_mb(found: Found, name: str) -> float:
    return max(sample.rss_mb for sample in found.memory[name])


def _told(found: Found) -> dict[str, Any]:
    return {
        "references": {
            name: {
                "audio_s_per_s": [turn.speed for turn in turns],
                "audio_s_per_cpu_s": [turn.speed_per_cpu for turn in turns],
            }
            for name, turns in found.loops.items()
        },
        "contestants": {
            name: {
                _who(clients): [_taken_told(one) for one in taken] for clients, taken in by_clients.items()
            }
            for name, by_clients in found.taken.items()
        },
        "memory": {
            name: {
                "rss_at_first_mb": samples[0].rss_mb,
                "rss_peak_mb": _peak_mb(found, name),
                "pss_peak_mb": max(sample.pss_mb for sample in samples),
            }
            for name, samples in found.memory.items()
        },
    }


def _taken_told(taken: Taken) -> dict[str, Any]:
    turn = taken.turn
    return {
        **{key: value for key, value in asdict(turn).items() if key != "latencies_s"},
        "audio_s_per_s": turn.speed,
        "of": {name: taken.of(name) for name in taken.around},
        "of_per_cpu": {name: taken.of_per_cpu(name) for name in taken.around},
        "latency_p50_s": median(turn.latencies_s) if turn.latencies_s else None,
    }


if __name__ == "__main__":
    main()
