"""The embedded engine on one recording, side by side with the model's own library and with its bare files.

Every variant runs in a process of its own, the variants in turn, round after round:

    library    moonshine_voice.Transcriber on the whole recording, with its own VAD
    files-1    the wheel's .ort files, onnxruntime, one thread: one of our windows after the other
    files-8    the same in batches of 8 pieces of equal length (10 s, cut anywhere: speed only)
    ours-1     VAD, windows, batcher, engine, trust: one decode thread
    ours-2     the same on two decode threads
    ours-only  our engine alone, one thread: the windows of ours-1 in batches by length

Loading and one warm-up on the first ten seconds are not counted; the recording is read before.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from figures import Bound, Report, Row, median, parser, row, significant
from in_process import EMBEDDED_MODEL, embedded_model_folder, transcribe_samples, windows_of
from ort_files import OrtFiles
from processes import own_peak_rss_mb, run_json
from recordings import Samples, samples_of, write_recording

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.base import DecodeOptions
from voiceforge.speech.engines.batcher import Batcher
from voiceforge.speech.engines.moonshine_ort import MoonshineOrt
from voiceforge.speech.pipeline.listen import LocalListener
from voiceforge.speech.transcript.types import ModelRef

VARIANTS = ("library", "files-1", "files-8", "ours-1", "ours-2", "ours-only")
_WARM_UP_SAMPLES = 10 * SAMPLE_RATE_HZ
_EQUAL_S = 10
_WINDOW_S = 12.0
_BATCH = 8


def main() -> None:
    made = parser(__doc__, rounds=3)
    made.add_argument("--seconds", type=float, default=300.0, help="length of the recording (default 300)")
    made.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, metavar="NAME")
    made.add_argument("--run-variant", choices=VARIANTS, help="one variant in this process, as JSON")
    made.add_argument("--audio", type=Path, help="with --run-variant: the recording")
    args = made.parse_args()
    if args.run_variant:
        print(json.dumps(_run_variant(args.run_variant, args.audio)))
        return
    _compare(args)


def _compare(args: Namespace) -> None:
    report = Report("engine")
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in args.variants}
    with tempfile.TemporaryDirectory() as folder:
        recording = write_recording(Path(folder), args.speech, args.seconds)
        for number in range(args.rounds):
            for name in args.variants:
                print(f"round {number + 1}/{args.rounds}: {name}", file=sys.stderr)
                command = [sys.executable, __file__, "--run-variant", name, "--audio", str(recording.path)]
                found[name].append(run_json(command))
    summary = {name: _summary(runs, recording.seconds, recording.text) for name, runs in found.items()}
    report.details = {"audio_s": recording.seconds, "variants": summary}
    report.rows = _rows(summary)
    report.finish(args.json)


def _summary(runs: Sequence[dict[str, Any]], audio_s: float, text: str | None) -> dict[str, Any]:
    return {
        "audio_s_per_cpu_s": median([audio_s / run["cpu_s"] for run in runs]),
        "audio_s_per_s": median([audio_s / run["wall_s"] for run in runs]),
        "peak_rss_mb": median([run["peak_rss_mb"] for run in runs]),
        "load_s": median([run["load_s"] for run in runs]),
        "wer_percent": _wer(text, runs[0]["text"]),
        "runs": [{key: value for key, value in run.items() if key != "text"} for run in runs],
    }


def _wer(reference: str | None, text: str | None) -> float | None:
    if reference is None or text is None:
        return None
    from voiceforge.speech.training.evaluation import Scorer

    rate = Scorer("whisper-english").score(reference, text, "en").words.rate
    return None if rate is None else 100 * rate


def _rows(summary: dict[str, dict[str, Any]]) -> list[Row]:
    def of(name: str, key: str) -> float | None:
        return summary[name][key] if name in summary else None

    def told(*names: str, key: str, unit: str) -> str:
        known = [(name, value) for name in names if (value := of(name, key)) is not None]
        return ", ".join(f"{name} {significant(value)}{unit}" for name, value in known) or "–"

    ours, library = of("ours-1", "audio_s_per_cpu_s"), of("library", "audio_s_per_cpu_s")
    return [
        row(
            "embedded engine: audio seconds per CPU-second, one thread",
            ours,
            reference=told("library", "files-1", "files-8", key="audio_s_per_cpu_s", unit=""),
            bound=Bound(50, "at least"),
        ),
        row("… times the library", ours / library if ours and library else None, bound=Bound(4, "at least")),
        row(
            "… audio seconds per second, two threads",
            of("ours-2", "audio_s_per_s"),
            reference=told("library", key="audio_s_per_s", unit=""),
            bound=Bound(90, "at least"),
        ),
        row("… per CPU-second, two threads", of("ours-2", "audio_s_per_cpu_s"), bound=Bound(50, "at least")),
        row("… per CPU-second, the engine alone", of("ours-only", "audio_s_per_cpu_s")),
        row(
            "… peak memory, two threads",
            of("ours-2", "peak_rss_mb"),
            "MB",
            reference=told("library", "files-1", "files-8", key="peak_rss_mb", unit=" MB"),
            bound=Bound(450, "at most"),
        ),
        row(
            "… WER of this recording",
            of("ours-2", "wer_percent"),
            "%",
            reference=told("library", "files-1", key="wer_percent", unit=" %"),
        ),
    ]


def _run_variant(name: str, audio: Path) -> dict[str, Any]:
    samples = samples_of(audio)
    started = time.perf_counter()
    prepare = _LOADERS[name]()
    load_s = time.perf_counter() - started
    prepare(samples[:_WARM_UP_SAMPLES])()
    recognise = prepare(samples)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    text = recognise()
    return {
        "wall_s": time.perf_counter() - wall_s,
        "cpu_s": time.process_time() - cpu_s,
        "load_s": load_s,
        "peak_rss_mb": own_peak_rss_mb(),
        "text": text,
    }


Prepare = Callable[[Samples], Callable[[], str | None]]
"""Samples in, what is measured out; that returns the text, None where words were cut in two."""


def _library() -> Prepare:
    from moonshine_voice import ModelArch, Transcriber

    transcriber = Transcriber(str(embedded_model_folder()), ModelArch.TINY)

    def prepare(samples: Samples) -> Callable[[], str]:
        numbers = samples.tolist()  # as its own load_wav_file gives them

        def recognise() -> str:
            found = transcriber.transcribe_without_streaming(numbers, SAMPLE_RATE_HZ)
            return " ".join(line.text for line in found.lines)

        return recognise

    return prepare


def _files_one_by_one() -> Prepare:
    files = OrtFiles(embedded_model_folder())

    def prepare(samples: Samples) -> Callable[[], str]:
        windows = windows_of(samples, _WINDOW_S)
        return lambda: " ".join(text for window in windows for text in files.texts([window]))

    return prepare


def _files_in_batches() -> Prepare:
    files = OrtFiles(embedded_model_folder())
    length = _EQUAL_S * SAMPLE_RATE_HZ

    def prepare(samples: Samples) -> Callable[[], None]:
        pieces = samples[: len(samples) // length * length].reshape(-1, length)

        def recognise() -> None:
            for first in range(0, len(pieces), _BATCH):
                files.texts(list(pieces[first : first + _BATCH]))

        return recognise

    return prepare


def _ours(threads: int) -> Prepare:
    batcher = Batcher(_engine(threads))
    listener = LocalListener()
    return lambda samples: lambda: transcribe_samples(samples, batcher, listener).text


def _ours_only() -> Prepare:
    engine = _engine(1)
    rows = engine.capabilities.max_batch_rows

    def prepare(samples: Samples) -> Callable[[], str]:
        windows = windows_of(samples, engine.capabilities.best_window_s)
        by_length = sorted(range(len(windows)), key=lambda i: len(windows[i]))

        def recognise() -> str:
            texts = [""] * len(windows)
            for first in range(0, len(windows), rows):
                chosen = by_length[first : first + rows]
                heard = engine.decode([windows[i] for i in chosen], DecodeOptions())
                for i, hypothesis in zip(chosen, heard, strict=True):
                    texts[i] = " ".join(segment.text for segment in hypothesis.segments)
            return " ".join(texts)

        return recognise

    return prepare


def _engine(threads: int) -> MoonshineOrt:
    return MoonshineOrt(embedded_model_folder(), ModelRef(EMBEDDED_MODEL, ""), parallel_decodes=threads)


_LOADERS: dict[str, Callable[[], Prepare]] = {
    "library": _library,
    "files-1": _files_one_by_one,
    "files-8": _files_in_batches,
    "ours-1": lambda: _ours(1),
    "ours-2": lambda: _ours(2),
    "ours-only": _ours_only,
}

if __name__ == "__main__":
    main()
