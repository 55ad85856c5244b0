"""What the server costs on top of the engine: one client over HTTP against the bare faster-whisper loop.

Both decode the same ten seconds, over and over, with the same model (made up, tiny.en dimensions), beam 5,
int8 and the same number of CPU threads; both are loaded once, then they take turns, a few calls each. The
loop gets the file's path, the server gets it as an upload of the OpenAI kind. Loaded but idle, neither
uses CPU, so they do not disturb each other.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from figures import Bound, Report, median, parser, row, significant
from processes import environment, serving
from synthetic_whisper import SIZES, build
from watches import tree_cpu_s

from voiceforge.services.samples import sample_recordings

_BEAM = 5


@dataclass(frozen=True, slots=True)
class Turn:
    """seconds: wall of each call."""

    seconds: tuple[float, ...]
    cpu_s: float
    words: int

    @property
    def wall_s(self) -> float:
        return sum(self.seconds)


def main() -> None:
    made = parser(__doc__, rounds=9)
    made.add_argument("--calls", type=int, default=5, help="calls per turn (default %(default)s)")
    made.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="CPU threads (default 1 2)")
    made.add_argument("--size", choices=sorted(SIZES), default="tiny.en")
    made.add_argument("--tokens", type=int, default=100, help="text tokens per window (default 100)")
    made.add_argument(
        "--file", type=Path, default=sample_recordings()[0], help="at most one window of speech"
    )
    made.add_argument(
        "--run-loop", type=Path, metavar="MODEL", help="the bare loop; a turn per line of input"
    )
    args = made.parse_args()
    if args.run_loop:
        _loop(args)
    else:
        _compare(args)


def _compare(args: Namespace) -> None:
    report = Report("http_overhead")
    with tempfile.TemporaryDirectory() as folder:
        model = build(Path(folder) / "model", size=args.size, tokens=args.tokens)
        for threads in args.threads:
            found = _measure(args, model, Path(folder) / "data", threads)
            report.details[f"threads {threads}"] = found
            title = f"whisper_ct2 through HTTP, one client, {threads} CPU thread{'s' if threads > 1 else ''}"
            told = ", ".join(
                f"{significant(1000 * found['loop'][key])} ms {unit}"
                for key, unit in (("median_s", "a call"), ("cpu_per_call_s", "CPU"))
            )
            report.rows += [
                row(
                    f"{title}: speed against the bare loop",
                    found["wall_ratio"],
                    reference=told,
                    bound=Bound(0.97, "at least"),
                ),
                row("… calls per CPU-second against the bare loop", found["cpu_ratio"]),
            ]
    report.finish(args.json)


def _measure(args: Namespace, model: Path, data_dir: Path, threads: int) -> dict[str, Any]:
    """wall_ratio, cpu_ratio: of the loop's cost to the server's, medians over the rounds."""
    env = environment(data_dir, VOICEFORGE_MODEL=str(model), VOICEFORGE_ENGINE__THREADS=str(threads))
    loops: list[Turn] = []
    served: list[Turn] = []
    with _bare_loop(args, model, threads) as loop_turn, _server(args, env) as server_turn:
        loop_turn(), server_turn()
        for number in range(args.rounds):
            print(f"threads {threads}, round {number + 1}/{args.rounds}", file=sys.stderr)
            # Who goes first alternates, so that a drift of the machine falls on both.
            for turn, into in ((loop_turn, loops), (server_turn, served))[:: 1 if number % 2 else -1]:
                into.append(turn())
    if {turn.words for turn in (*loops, *served)} != {loops[0].words}:
        raise SystemExit("the two did not recognise the same number of words")
    return {
        "wall_ratio": median([a.wall_s / b.wall_s for a, b in zip(loops, served, strict=True)]),
        "cpu_ratio": median([a.cpu_s / b.cpu_s for a, b in zip(loops, served, strict=True)]),
        "loop": _summary(loops),
        "server": _summary(served),
    }


def _summary(turns: list[Turn]) -> dict[str, Any]:
    calls = [seconds for turn in turns for seconds in turn.seconds]
    return {
        "median_s": median(calls),
        "fastest_s": min(calls),
        "cpu_per_call_s": sum(turn.cpu_s for turn in turns) / len(calls),
        "calls": len(calls),
        "words": turns[0].words,
    }


@contextmanager
def _server(args: Namespace, env: dict[str, str]) -> Iterator[Callable[[], Turn]]:
    body = args.file.read_bytes()
    with serving(env) as server, httpx.Client(base_url=server.url, timeout=120) as client:

        def turn() -> Turn:
            cpu_before, seconds, words = tree_cpu_s(server.pid), [], 0
            for _ in range(args.calls):
                started = time.perf_counter()
                reply = client.post(
                    "/v1/audio/transcriptions",
                    data={"model": "whisper-1", "response_format": "json"},
                    files={"file": (args.file.name, body)},
                )
                reply.raise_for_status()
                words = len(reply.json()["text"].split())
                seconds.append(time.perf_counter() - started)
            return Turn(tuple(seconds), tree_cpu_s(server.pid) - cpu_before, words)

        yield turn


@contextmanager
def _bare_loop(args: Namespace, model: Path, threads: int) -> Iterator[Callable[[], Turn]]:
    command = [sys.executable, __file__, "--run-loop", str(model), "--threads", str(threads)]
    command += ["--calls", str(args.calls), "--file", str(args.file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        tell, hear = process.stdin, process.stdout

        def turn() -> Turn:
            tell.write("go\n")
            tell.flush()
            told = json.loads(hear.readline())
            return Turn(tuple(told["seconds"]), told["cpu_s"], told["words"])

        yield turn
        tell.close()


def _loop(args: Namespace) -> None:
    from faster_whisper import WhisperModel

    whisper = WhisperModel(str(args.run_loop), device="cpu", compute_type="int8", cpu_threads=args.threads[0])
    for _ in sys.stdin:
        cpu_before, seconds, words = time.process_time(), [], 0
        for _ in range(args.calls):
            started = time.perf_counter()
            segments, _info = whisper.transcribe(str(args.file), beam_size=_BEAM)
            words = len(" ".join(segment.text for segment in segments).split())
            seconds.append(time.perf_counter() - started)
        answer = {"seconds": seconds, "cpu_s": time.process_time() - cpu_before, "words": words}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
