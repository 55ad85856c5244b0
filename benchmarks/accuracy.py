"""Word error rate of the embedded engine over the English clips of a manifest whose text is known.

Variants: our pipeline with windows of different lengths, live streams with different endpoints, and the
model's own library with its own VAD (slow: 10 s of audio per second). Whisper's English normaliser; every
clip by itself.

Without a manifest there is nothing to score: the wheel's clips come without text.
"""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from figures import Bound, Report, parser, row, significant
from in_process import EMBEDDED_MODEL, embedded_model_folder, stream_text, transcribe_file
from recordings import english_clips, samples_of

from voiceforge.errors import VoiceForgeError
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import Capabilities, DecodeOptions, Hypothesis, Wanted, always_wanted
from voiceforge.speech.engines.batcher import Batcher
from voiceforge.speech.engines.moonshine_ort import MoonshineOrt
from voiceforge.speech.options import StreamOptions, TranscribeOptions
from voiceforge.speech.pipeline.listen import LocalListener
from voiceforge.speech.training.evaluation import ErrorCounts, Scorer
from voiceforge.speech.training.manifest import ManifestEntry
from voiceforge.speech.transcript.types import ModelRef
from voiceforge.speech.vad.silero import SileroModel

_WINDOWS_S = (12.0, 16.0, 20.0, 29.0)
_JOINED_KINDS = frozenset({"conversation", "long"})
"""Put together from other clips of the same set: also told apart."""

Recognise = Callable[[ManifestEntry], str]


def main() -> None:
    made = parser(__doc__, rounds=1)
    made.add_argument("--windows", nargs="+", type=float, default=_WINDOWS_S, metavar="SECONDS")
    made.add_argument("--kinds", nargs="+", metavar="KIND", help="only clips of these kinds")
    made.add_argument("--limit", type=int, help="only the first so many clips")
    made.add_argument(
        "--endpointing",
        nargs="+",
        type=int,
        default=(),
        metavar="MS",
        help="live streams too",
    )
    made.add_argument("--interims", action="store_true", help="of live streams: five times as long")
    made.add_argument("--library", action="store_true", help="the model's own library too")
    made.add_argument("--threads", type=int, default=2, help="clips at a time (default %(default)s)")
    args = made.parse_args()
    clips = [e for e in english_clips(args.speech) if not args.kinds or e.kind in args.kinds][: args.limit]
    if clips:
        _compare(args, clips)
    else:
        print("nothing to score: --speech names no English clips with text", file=sys.stderr)


def _compare(args: Namespace, clips: Sequence[ManifestEntry]) -> None:
    engine = MoonshineOrt(
        embedded_model_folder(), ModelRef(EMBEDDED_MODEL, ""), parallel_decodes=args.threads
    )
    default_s = engine.capabilities.best_window_s
    found: dict[str, dict[str, Any]] = {}
    for window_s in sorted({default_s, *args.windows}):
        name = f"{window_s:g} s"
        found[name] = _score(name, clips, _ours(_Framed(engine, window_s)), args.threads)
    for endpointing_ms in args.endpointing:
        wish = StreamOptions(endpointing_ms=endpointing_ms, interim=args.interims, words=False)
        name = _live_name(endpointing_ms)
        found[name] = _score(name, clips, _live(engine, wish), args.threads)
    if args.library:
        found["library"] = _score("library", clips, _library(), 1)

    live = set(map(_live_name, args.endpointing))
    report = Report("accuracy", details={"clips": len(clips), "variants": found})
    told = f"library {significant(found['library']['wer_percent'])} %" if args.library else "–"
    chosen = found[f"{default_s:g} s"]
    report.rows.append(
        row(
            f"WER, {chosen['clips']} English clips",
            chosen["wer_percent"],
            "%",
            reference=told,
            bound=Bound(9.2, "at most"),
        )
    )
    report.rows += [
        row(f"… {name if name in live else f'windows of up to {name}'}", scores["wer_percent"], "%")
        for name, scores in found.items()
        if name not in ("library", f"{default_s:g} s")
    ]
    if chosen["apart"]["reference"]:
        beside = found["library"]["apart"] if args.library else None
        report.rows.append(
            row(
                f"… the {chosen['apart']['clips']} that are not joined from others",
                chosen["apart"]["wer_percent"],
                "%",
                reference=f"library {significant(beside['wer_percent'])} %" if beside else "–",
            )
        )
    report.finish(args.json)


def _score(name: str, clips: Sequence[ManifestEntry], recognise: Recognise, threads: int) -> dict[str, Any]:
    scorer = Scorer("whisper-english")
    started, cpu_before = time.perf_counter(), time.process_time()

    def count(clip: ManifestEntry) -> ErrorCounts:
        assert clip.text is not None
        try:
            text = recognise(clip)
        except VoiceForgeError as refused:
            print(f"{clip.name}: {refused.code}", file=sys.stderr)
            text = ""  # all its words count as left out
        return scorer.score(clip.text, text, clip.language).words

    with ThreadPoolExecutor(threads) as pool:
        counts = list(zip(clips, pool.map(count, clips), strict=True))
    cpu_s, wall_s = time.process_time() - cpu_before, time.perf_counter() - started
    kinds: dict[str, list[ErrorCounts]] = defaultdict(list)
    for clip, one in counts:
        kinds[clip.kind].append(one)
    apart = [one for clip, one in counts if clip.kind not in _JOINED_KINDS]
    joined = [one for clip, one in counts if clip.kind in _JOINED_KINDS]
    scores = {
        **_told([*apart, *joined]),
        "apart": _told(apart if joined else ()),
        "kinds": {kind: _told(of_kind) for kind, of_kind in sorted(kinds.items())},
        "worst": _worst(counts),
        "audio_s_per_cpu_s": sum(clip.duration or 0.0 for clip in clips) / cpu_s,
        "wall_s": wall_s,
    }
    print(f"{name}: {scores['wer_percent']:.2f} % in {wall_s:.0f} s", file=sys.stderr)
    for kind, told in scores["kinds"].items():
        print(
            f"  {kind:14} {told['wer_percent']:6.2f} %  of {told['reference']:5} words:"
            f"  {told['substitutions']} S  {told['deletions']} D  {told['insertions']} I",
            file=sys.stderr,
        )
    return scores


def _told(counts: Iterable[ErrorCounts]) -> dict[str, Any]:
    counts = list(counts)
    total = sum(counts, ErrorCounts())
    return {
        "wer_percent": 100 * total.rate if total.rate is not None else None,
        "clips": len(counts),
        "reference": total.reference,
        "substitutions": total.substitutions,
        "deletions": total.deletions,
        "insertions": total.insertions,
    }


def _worst(counts: Sequence[tuple[ManifestEntry, ErrorCounts]]) -> list[dict[str, Any]]:
    ranked = sorted(counts, key=lambda pair: pair[1].errors, reverse=True)[:20]
    return [{"clip": clip.name, "errors": c.errors, "reference": c.reference} for clip, c in ranked]


def _ours(engine: _Framed) -> Recognise:
    batcher, listener = Batcher(engine), LocalListener()
    return lambda clip: transcribe_file(clip.audio, batcher, listener, TranscribeOptions(raw=clip.raw)).text


def _live_name(endpointing_ms: int) -> str:
    return f"live, endpoint after {endpointing_ms} ms"


def _live(engine: MoonshineOrt, options: StreamOptions) -> Recognise:
    batcher, vad = Batcher(engine), SileroModel()
    return lambda clip: stream_text(samples_of(clip.audio, clip), batcher, vad, options)


def _library() -> Recognise:
    from moonshine_voice import ModelArch, Transcriber

    transcriber = Transcriber(str(embedded_model_folder()), ModelArch.TINY)

    def recognise(clip: ManifestEntry) -> str:
        samples = samples_of(clip.audio, clip)
        found = transcriber.transcribe_without_streaming(samples.tolist(), SAMPLE_RATE_HZ)
        return " ".join(line.text for line in found.lines)

    return recognise


class _Framed:
    """The engine, wishing for windows of another length."""

    def __init__(self, engine: MoonshineOrt, best_window_s: float) -> None:
        self._engine = engine
        self._capabilities = replace(engine.capabilities, best_window_s=best_window_s)

    @property
    def model(self) -> ModelRef:
        return self._engine.model

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def decode(
        self, windows: Sequence[Waveform], options: DecodeOptions, wanted: Wanted = always_wanted
    ) -> list[Hypothesis]:
        return self._engine.decode(windows, options, wanted)

    def close(self) -> None:
        """The engine goes on to the next variant."""


if __name__ == "__main__":
    main()
