"""What a caller may ask of a transcription: frozen values, checked where they are made.

Which engine can honour a wish is decided in `pipeline.plan`; here only what is wrong for every
engine is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from voiceforge.errors import InvalidRequest, UnsupportedOption

Task = Literal["transcribe", "translate"]
ChannelMode = Literal["mix", "split"]
RawEncoding = Literal["s16le", "s32le", "f32le", "mulaw", "alaw"]
Codec = Literal["flac", "ogg-opus", "opus"]

TASKS: tuple[Task, ...] = get_args(Task)
CHANNEL_MODES: tuple[ChannelMode, ...] = get_args(ChannelMode)
RAW_ENCODINGS: tuple[RawEncoding, ...] = get_args(RawEncoding)
CODECS: tuple[Codec, ...] = get_args(Codec)


@dataclass(frozen=True, slots=True)
class RawFormat:
    """How headerless PCM is to be read: it carries nothing that could be probed."""

    encoding: RawEncoding
    sample_rate_hz: int = 16_000
    channels: int = 1

    def __post_init__(self) -> None:
        if self.encoding not in RAW_ENCODINGS:
            raise UnsupportedOption(
                f"unknown raw encoding {self.encoding!r}", field="encoding", choices=RAW_ENCODINGS
            )
        if not 4_000 <= self.sample_rate_hz <= 384_000:
            raise InvalidRequest(
                f"sample rate {self.sample_rate_hz} Hz is outside 4000 to 384000 Hz", field="sample_rate"
            )
        if not 1 <= self.channels <= 32:
            raise InvalidRequest(f"{self.channels} channels; 1 to 32 are accepted", field="channels")


@dataclass(frozen=True, slots=True)
class EncodedFormat:
    """How encoded audio of a live stream is to be read where its content need not be asked.

    codec: "flac" and "ogg-opus" with their headers; "opus": bare packets, one per push.
    channels: of bare packets; the others tell by themselves.
    """

    codec: Codec
    channels: int = 1

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise UnsupportedOption(f"unknown codec {self.codec!r}", field="encoding", choices=CODECS)
        if not 1 <= self.channels <= 2:
            raise InvalidRequest(f"{self.channels} channels of Opus; 1 or 2 are accepted", field="channels")


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """How much audio one request may bring, in seconds. `max_duration_s` None: no upper limit."""

    min_duration_s: float = 0.1
    max_duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class VadOptions:
    """When a stretch of audio counts as speech.

    threshold: speech probability that opens a region; it closes 0.15 below (Silero's own rule).
    min_speech_ms: shorter regions are dropped.
    min_silence_ms: shorter pauses do not end a region.
    padding_ms: kept on either side of a region, so that soft consonants survive.
    """

    threshold: float = 0.5
    min_speech_ms: int = 100
    min_silence_ms: int = 300
    padding_ms: int = 200

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold < 1.0:
            raise InvalidRequest("vad threshold must lie between 0 and 1", field="vad_threshold")
        for name in ("min_speech_ms", "min_silence_ms", "padding_ms"):
            if not 0 <= getattr(self, name) <= 10_000:
                raise InvalidRequest(f"{name} must lie between 0 and 10000", field=name)


@dataclass(frozen=True, slots=True)
class TranscribeOptions:
    """One caller's wishes for one recording.

    language: ISO 639-1 code; None: detect, or the engine's only one.
    words: word times wanted.
    prompt, keyterms: bias towards a context and towards names.
    temperature, beam_size: None leaves the engine's own default.
    """

    language: str | None = None
    task: Task = "transcribe"
    words: bool = False
    channels: ChannelMode = "mix"
    prompt: str | None = None
    keyterms: tuple[str, ...] = ()
    temperature: float | None = None
    beam_size: int | None = None
    normalize_peak: bool = True
    raw: RawFormat | None = None
    limits: AudioLimits = field(default_factory=AudioLimits)
    vad: VadOptions = field(default_factory=VadOptions)

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise UnsupportedOption(f"unknown task {self.task!r}", field="task", choices=TASKS)
        if self.channels not in CHANNEL_MODES:
            raise UnsupportedOption(
                f"unknown channels mode {self.channels!r}", field="channels", choices=CHANNEL_MODES
            )
        if self.temperature is not None and not 0.0 <= self.temperature <= 1.0:
            raise InvalidRequest("temperature must lie between 0 and 1", field="temperature")
        if self.beam_size is not None and not 1 <= self.beam_size <= 20:
            raise InvalidRequest("beam_size must lie between 1 and 20", field="beam_size")


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """One caller's wishes for live speech. What is said of audio positions counts samples received, never a
    clock.

    language, prompt, keyterms, temperature, beam_size: as in `TranscribeOptions`.
    words: finals carry word times.
    interim: hypotheses are told before an utterance ends; interim_every_ms: of speech, between two of them.
    endpointing_ms: the pause that ends an utterance; None: only its length and `finalize` do, and the wait of
        `utterance_end_ms`.
    utterance_end_ms: silence after the last word after which `UtteranceEnd` is told; None: never.
    min_utterance_ms: no pause ends an utterance before it has lasted so long.
    max_utterance_s: an utterance is cut, at its least speech-like moment, where it grows longer; None: where
        the engine likes its windows to end.
    """

    language: str | None = None
    words: bool = True
    prompt: str | None = None
    keyterms: tuple[str, ...] = ()
    temperature: float | None = None
    beam_size: int | None = None
    interim: bool = True
    interim_every_ms: int = 500
    endpointing_ms: int | None = 300
    utterance_end_ms: int | None = None
    min_utterance_ms: int = 0
    max_utterance_s: float | None = None
    vad_threshold: float = 0.5

    def __post_init__(self) -> None:
        _check_range("interim_every_ms", self.interim_every_ms, 100, 60_000)
        _check_range("endpointing", self.endpointing_ms, 10, 10_000)
        _check_range("utterance_end_ms", self.utterance_end_ms, 100, 60_000)
        _check_range("min_utterance_ms", self.min_utterance_ms, 0, 60_000)
        _check_range("max_utterance_s", self.max_utterance_s, 1.0, 60.0)
        _check_range("temperature", self.temperature, 0.0, 1.0)
        _check_range("beam_size", self.beam_size, 1, 20)
        if not 0.0 < self.vad_threshold < 1.0:
            raise InvalidRequest("vad threshold must lie between 0 and 1", field="vad_threshold")


def _check_range(name: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise InvalidRequest(f"{name} must lie between {low:g} and {high:g}", field=name)
