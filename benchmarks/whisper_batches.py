"""Whisper's windows in batches beside faster-whisper's loop over them: speed, memory, and equal answers.

Every variant runs in a process of its own, the variants in turn, round after round, on the same windows of
speech and the same model (made up, `synthetic_whisper.py`), beam 5, int8:

    loop-1    faster-whisper's WhisperModel.transcribe, window after window, one CPU thread
    loop-all  the same with every core for each window
    rows-N    our engine as it lays itself out (on two cores two calls at a time), N windows per call

Loading and one window per call are not counted. Answers are tokens, log probabilities, probabilities of
silence and of words; they are compared to the last bit.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import tempfile
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import Bound, Report, Row, median, parser, row, significant
from in_process import windows_of
from processes import own_peak_rss_mb, run_json
from recordings import Samples, samples_of, write_recording
from synthetic_whisper import SIZES, build

from voiceforge.main.memory import return_large_blocks, suit_memory_to
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.base import DecodeOptions
from voiceforge.speech.engines.device import choose_device, usable_cores
from voiceforge.speech.engines.whisper_ct2 import BEST_WINDOW_S, WhisperCt2
from voiceforge.speech.transcript.types import ModelRef

VARIANTS = ("loop-1", "loop-all", "rows-1", "rows-2")
_BEAM = 5

Answers = list[Any]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """calls: of `recognise` at a time. chosen_rows: what the engine takes by itself; None: not ours."""

    recognise: Callable[[Sequence[Samples]], Answers]
    calls: int
    rows: int
    chosen_rows: int | None


def main() -> None:
    made = parser(__doc__, rounds=3)
    made.add_argument("--sizes", nargs="+", choices=sorted(SIZES), default=["tiny.en", "small.en"])
    made.add_argument("--windows", type=int, default=4, help="of nearly 28 s each (default %(default)s)")
    made.add_argument("--words", action="store_true", help="with word times")
    made.add_argument("--variants", nargs="+", type=_variant, default=VARIANTS, metavar="NAME")
    made.add_argument("--run-variant", type=_variant, help="one variant in this process, as JSON")
    made.add_argument("--audio", type=Path, help="with --run-variant: the recording")
    made.add_argument("--model", type=Path, help="with --run-variant: the model's folder")
    args = made.parse_args()
    if args.run_variant:
        print(json.dumps(_run_variant(args)))
        return
    _compare(args)


def _variant(text: str) -> str:
    if text not in ("loop-1", "loop-all") and not re.fullmatch(r"rows-[1-9]\d*", text):
        raise ArgumentTypeError(f"{text} is none of {', '.join(VARIANTS)}")
    return text


def _compare(args: Namespace) -> None:
    report = Report("whisper_batches")
    with tempfile.TemporaryDirectory() as folder:
        # Windows end in pauses: some more speech than they could hold.
        recording = write_recording(Path(folder), args.speech, 1.5 * args.windows * BEST_WINDOW_S)
        for size in args.sizes:
            model = build(Path(folder) / size, size=size)
            found: dict[str, list[dict[str, Any]]] = {name: [] for name in args.variants}
            for number, name in itertools.product(range(args.rounds), args.variants):
                print(f"{size}, round {number + 1}/{args.rounds}: {name}", file=sys.stderr)
                command = [sys.executable, __file__, "--run-variant", name, "--windows", str(args.windows)]
                command += ["--audio", str(recording.path), "--model", str(model)]
                found[name].append(run_json([*command, *(["--words"] if args.words else [])]))
            summary = {name: _summary(runs, found) for name, runs in found.items()}
            report.details[size] = summary
            report.rows += _rows(size, summary)
    report.finish(args.json)


def _summary(runs: Sequence[dict[str, Any]], all_runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """equal: windows whose answer is that of faster-whisper's loop on one thread; None: it did not run."""
    reference = all_runs["loop-1"][0]["answers"] if all_runs.get("loop-1") else None
    return {
        "cpu_s_per_window": median([run["cpu_s"] / run["windows"] for run in runs]),
        "wall_s_per_window": median([run["wall_s"] / run["windows"] for run in runs]),
        "audio_s_per_s": median([run["audio_s"] / run["wall_s"] for run in runs]),
        "peak_rss_mb": median([run["peak_rss_mb"] for run in runs]),
        "rows": runs[0]["rows"],
        "chosen_rows": runs[0]["chosen_rows"],
        "windows": runs[0]["windows"],
        "equal": min(_equal(run["answers"], reference) for run in runs) if reference else None,
        "runs": [{key: value for key, value in run.items() if key != "answers"} for run in runs],
    }


def _equal(answers: Answers, reference: Answers) -> int:
    return sum(one == other for one, other in zip(answers, reference, strict=True))


def _rows(size: str, summary: dict[str, dict[str, Any]]) -> list[Row]:
    def told(key: str, digits: Callable[[float], str] = significant) -> str:
        return ", ".join(
            f"{name} {digits(found[key])}" for name, found in summary.items() if found is not ours
        )

    ours = next((found for found in summary.values() if found["rows"] == found["chosen_rows"]), None)
    if ours is None:
        return []
    loops = [found for name in ("loop-1", "loop-all") if (found := summary.get(name))]
    fastest = max((loop["audio_s_per_s"] for loop in loops), default=None)
    return [
        row(
            f"Whisper {size}, audio seconds per second, windows per call: {ours['rows']}",
            ours["audio_s_per_s"],
            reference=told("audio_s_per_s"),
        ),
        row(
            "… times the faster of the two loops",
            ours["audio_s_per_s"] / fastest if fastest else None,
            bound=Bound(1.25, "at least"),
        ),
        row("… CPU-seconds per window", ours["cpu_s_per_window"], reference=told("cpu_s_per_window")),
        row("… peak memory", ours["peak_rss_mb"], "MB", reference=told("peak_rss_mb")),
        row(
            f"… windows answered like the loop does, of {ours['windows']}",
            ours["equal"],
            reference=told("equal", str),
            bound=Bound(ours["windows"], "at least"),
        ),
    ]


def _run_variant(args: Namespace) -> dict[str, Any]:
    prepared = _loop(args) if args.run_variant.startswith("loop") else _ours(args)
    recognise, calls, rows = prepared.recognise, prepared.calls, prepared.rows
    windows = windows_of(samples_of(args.audio), BEST_WINDOW_S)[: args.windows]
    with ThreadPoolExecutor(calls) as pool:
        batches = [windows[at : at + rows] for at in range(0, len(windows), rows)]
        list(pool.map(recognise, [[windows[0]]] * calls))
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        answers = [answer for batch in pool.map(recognise, batches) for answer in batch]
        return {
            "wall_s": time.perf_counter() - wall_s,
            "cpu_s": time.process_time() - cpu_s,
            "peak_rss_mb": own_peak_rss_mb(),
            "audio_s": sum(map(len, windows)) / SAMPLE_RATE_HZ,
            "windows": len(windows),
            "rows": rows,
            "chosen_rows": prepared.chosen_rows,
            "answers": answers,
        }


def _ours(args: Namespace) -> _Prepared:
    return_large_blocks()  # as the process of a model does
    engine = WhisperCt2(args.model, ModelRef("made up", ""), device=choose_device("cpu", "int8"))
    suit_memory_to("whisper_ct2")
    can = engine.capabilities
    options = DecodeOptions(words=args.words, beam_size=_BEAM)

    def recognise(windows: Sequence[Samples]) -> Answers:
        return [
            [[s.tokens, s.avg_logprob, s.no_speech_prob, [w.confidence for w in s.words]] for s in h.segments]
            for h in engine.decode(windows, options)
        ]

    rows = int(args.run_variant.partition("-")[2])
    return _Prepared(recognise, can.parallel_decodes, rows, can.max_batch_rows)


def _loop(args: Namespace) -> _Prepared:
    from faster_whisper import WhisperModel

    threads = 1 if args.run_variant == "loop-1" else usable_cores()
    whisper = WhisperModel(str(args.model), device="cpu", compute_type="int8", cpu_threads=threads)

    def recognise(windows: Sequence[Samples]) -> Answers:
        answers = []
        for window in windows:
            segments, _ = whisper.transcribe(window, beam_size=_BEAM, word_timestamps=args.words)
            answers.append(
                [
                    [s.tokens, s.avg_logprob, s.no_speech_prob, [float(w.probability) for w in s.words or ()]]
                    for s in segments
                ]
            )
        return answers

    return _Prepared(recognise, calls=1, rows=1, chosen_rows=None)


if __name__ == "__main__":
    main()
