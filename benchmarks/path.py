"""The whole path, file to JSON, and which stage takes how much of it.

Three views of one recording, with and without word times:

    in process  the services as every surface calls them; nothing wrapped, loading not counted
    stages      the pipeline with each public part wrapped in a stop-watch of CPU time
    command     `voiceforge transcribe --format json` in a process of its own, start included
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from figures import Bound, Report, Row, median, parser, row
from in_process import EMBEDDED_MODEL, embedded_model_folder
from numpy.typing import NDArray
from processes import environment, own_peak_rss_mb, run, run_json, voiceforge
from recordings import write_recording

from voiceforge.main.build import build
from voiceforge.main.settings import Settings
from voiceforge.services.access import OWNER
from voiceforge.services.transcriptions import TranscribeRequest
from voiceforge.speech.alignment.english_pocketsphinx import PocketsphinxAligner
from voiceforge.speech.audio.decode import AudioStream, open_audio
from voiceforge.speech.audio.waveform import Waveform
from voiceforge.speech.engines.base import Capabilities, DecodeOptions, Hypothesis, Wanted, always_wanted
from voiceforge.speech.engines.batcher import Batcher
from voiceforge.speech.engines.moonshine_ort import MoonshineOrt
from voiceforge.speech.formats import render
from voiceforge.speech.formats.subtitles import SubtitleOptions
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.pipeline.batch import transcribe
from voiceforge.speech.pipeline.listen import listen, listen_options
from voiceforge.speech.transcript.events import Finished
from voiceforge.speech.transcript.types import ModelRef, Word
from voiceforge.speech.vad.silero import SileroModel

VIEWS = ("in process", "stages", "command")
_PATH_GOALS = {True: Bound(25, "at least"), False: Bound(40, "at least")}
_SHARES = ("decode", "vad", "engine", "alignment", "render", "rest")


def main() -> None:
    made = parser(__doc__, rounds=3)
    made.add_argument("--seconds", type=float, default=300.0, help="length of the recording (default 300)")
    made.add_argument("--file", type=Path, help="measure this recording instead of a made one")
    made.add_argument("--threads", type=int, default=2, help="decode threads (default %(default)s)")
    made.add_argument("--run-view", choices=VIEWS[:2], help="one view in this process, as JSON")
    made.add_argument("--words", action="store_true", help="with --run-view: word times")
    args = made.parse_args()
    if args.run_view is None:
        _compare(args)
    elif args.run_view == "stages":
        print(json.dumps(_stages(args.file, args.words, args.threads)))
    else:
        print(json.dumps(asyncio.run(_in_process(args.file, args.words, args.threads))))


def _compare(args: Namespace) -> None:
    found: dict[tuple[str, bool], list[dict[str, Any]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        path = args.file or write_recording(Path(folder), args.speech, args.seconds).path
        with open_audio(path) as stream:
            audio_s = sum(block.shape[1] for block in stream.blocks()) / 16_000
        for number in range(args.rounds):
            for view in VIEWS:
                for words in (False, True):
                    print(f"round {number + 1}/{args.rounds}: {view}, words {words}", file=sys.stderr)
                    found[view, words].append(_view(view, path, words, args.threads, Path(folder)))
    medians = {key: _medians(runs, audio_s) for key, runs in found.items()}
    report = Report("path")
    report.details = {"audio_s": audio_s} | {
        f"{view}, {'with' if words else 'without'} word times": numbers
        for (view, words), numbers in medians.items()
    }
    for words in (True, False):
        report.rows += _rows(words, {view: medians[view, words] for view in VIEWS})
    report.finish(args.json)


def _view(view: str, path: Path, words: bool, threads: int, folder: Path) -> dict[str, Any]:
    more = ["--words"] if words else []
    if view == "command":
        command = [
            *voiceforge(),
            "transcribe",
            str(path),
            "--format",
            "json",
            "--threads",
            str(threads),
            *more,
        ]
        cost = run(command, environment(folder / "data"))
        return {"wall_s": cost.wall_s, "cpu_s": cost.cpu_s, "peak_rss_mb": cost.peak_rss_mb}
    command = [sys.executable, __file__, "--run-view", view, "--file", str(path), "--threads", str(threads)]
    return run_json([*command, *more], environment(folder / "data"))


def _medians(runs: Sequence[dict[str, Any]], audio_s: float) -> dict[str, Any]:
    numbers = {key: median([run[key] for run in runs]) for key in runs[0]}
    return numbers | {
        "audio_s_per_cpu_s": audio_s / numbers["cpu_s"],
        "audio_s_per_s": audio_s / numbers["wall_s"],
    }


def _rows(words: bool, of: dict[str, dict[str, Any]]) -> list[Row]:
    inside, stages, command = (of[view] for view in VIEWS)
    title = "with word times" if words else "without word times"
    total = sum(stages[f"{name}_cpu_s"] for name in _SHARES)
    shares = ", ".join(f"{name} {100 * stages[f'{name}_cpu_s'] / total:.0f} %" for name in _SHARES)
    return [
        row(
            f"file to JSON {title}: audio seconds per CPU-second",
            inside["audio_s_per_cpu_s"],
            bound=_PATH_GOALS[words],
        ),
        row("… audio seconds per second", inside["audio_s_per_s"]),
        row("… the command, start included, per CPU-second", command["audio_s_per_cpu_s"]),
        row("… the command, per second", command["audio_s_per_s"]),
        row("… the command's peak memory", command["peak_rss_mb"], "MB", bound=Bound(450, "at most")),
        Row("… shares of CPU time", "–", shares),
    ]


async def _in_process(path: Path, words: bool, threads: int) -> dict[str, float]:
    services = build(Settings.model_validate({"engine": {"threads": threads}}), version="benchmark")
    transcriptions = services.transcriptions
    await asyncio.to_thread(transcriptions.preload, transcriptions.check(OWNER, None, TranscribeOptions()))
    request = TranscribeRequest(path, TranscribeOptions(words=words))
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    transcript = await transcriptions.transcribe(request)
    transcriptions.render(transcript, "json", words=words)
    spent = {
        "wall_s": time.perf_counter() - wall_s,
        "cpu_s": time.process_time() - cpu_s,
        "peak_rss_mb": own_peak_rss_mb(),
    }
    services.engines.close(grace_s=0.0)
    transcriptions.close()
    return spent


class _Watch:
    """CPU seconds per stage, summed over threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.spent: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.thread_time()
        try:
            yield
        finally:
            spent = time.thread_time() - started
            with self._lock:
                self.spent[stage] += spent


def _stages(path: Path, words: bool, threads: int) -> dict[str, float]:
    watch = _Watch()
    model = ModelRef(EMBEDDED_MODEL, "")
    engine = MoonshineOrt(embedded_model_folder(), model, parallel_decodes=threads)
    batcher = Batcher(_TimedEngine(engine, watch))
    aligner = PocketsphinxAligner(max_decoders=threads)
    if words:
        aligner.preload()
    vad, timed_aligner = _TimedVad(watch), _TimedAligner(aligner, watch)
    ticket = batcher.open()
    options = TranscribeOptions(words=words)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    with open_audio(path) as stream:
        timed = cast(AudioStream, _TimedStream(stream, watch))
        heard = listen(timed, vad, listen_options(options, ticket.capabilities))
        for event in transcribe(heard, ticket, timed_aligner, options):
            if isinstance(event, Finished):
                with watch("render"):
                    render(event.transcript, "json", words=words, subtitles=SubtitleOptions())
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    ticket.close()
    batcher.close()
    known = {f"{name}_cpu_s": watch.spent[name] for name in _SHARES if name != "rest"}
    return {"wall_s": wall_s, "cpu_s": cpu_s, "rest_cpu_s": cpu_s - sum(known.values())} | known


class _TimedEngine:
    def __init__(self, engine: MoonshineOrt, watch: _Watch) -> None:
        self._engine = engine
        self._watch = watch

    @property
    def model(self) -> ModelRef:
        return self._engine.model

    @property
    def capabilities(self) -> Capabilities:
        return self._engine.capabilities

    def decode(
        self, windows: Sequence[Waveform], options: DecodeOptions, wanted: Wanted = always_wanted
    ) -> list[Hypothesis]:
        with self._watch("engine"):
            return self._engine.decode(windows, options, wanted)

    def close(self) -> None:
        self._engine.close()


class _TimedVad(SileroModel):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def run(
        self, frames: NDArray[np.float32], state: NDArray[np.float32]
    ) -> tuple[list[float], NDArray[np.float32]]:
        with self._watch("vad"):
            return super().run(frames, state)


class _TimedAligner:
    def __init__(self, aligner: PocketsphinxAligner, watch: _Watch) -> None:
        self._aligner = aligner
        self._watch = watch

    @property
    def languages(self) -> frozenset[str]:
        return self._aligner.languages

    def align(self, samples: Waveform, text: str) -> tuple[Word, ...]:
        with self._watch("alignment"):
            return self._aligner.align(samples, text)


class _TimedStream:
    """An `AudioStream` whose blocks are timed."""

    def __init__(self, stream: AudioStream, watch: _Watch) -> None:
        self._stream = stream
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        blocks = iter(self._stream.blocks())
        while True:
            with self._watch("decode"):
                block = next(blocks, None)
            if block is None:
                return
            yield block


if __name__ == "__main__":
    main()
