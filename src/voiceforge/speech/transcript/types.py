"""The document and its parts. All times are float seconds from the start of the recording."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

GapReason = Literal["no_text", "removed"]
RemovalReason = Literal["repetition_loop", "no_speech", "no_speech_hallucination"]
WarningCode = Literal[
    "silence", "no_speech", "clipping", "truncated", "option_ignored", "words_estimated", "sample_rate_low"
]


@dataclass(frozen=True, slots=True)
class Word:
    """One word as written, punctuation attached, without surrounding spaces.

    confidence: probability in [0, 1]; None where the engine gives none.
    estimated: the times lie between its neighbours' rather than being measured.
    """

    text: str
    start: float
    end: float
    confidence: float | None = None
    estimated: bool = False
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A timed stretch of text, at most a sentence or two. Segments of one channel never overlap.

    avg_logprob: mean log probability of its tokens. no_speech_prob: chance that nothing is said.
    tokens, temperature, compression_ratio: as the engine decoded it (OpenAI's verbose_json).
    """

    id: int
    start: float
    end: float
    text: str
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    words: tuple[Word, ...] = ()
    channel: int | None = None
    speaker: str | None = None
    tokens: tuple[int, ...] = ()
    temperature: float = 0.0
    compression_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class Gap:
    """Speech of at least half a second that has no text even after a second decode."""

    start: float
    end: float
    reason: GapReason


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the detected speech became text, in seconds summed over channels."""

    speech_s: float
    transcribed_s: float
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, slots=True)
class Removal:
    """Text the engine produced and we took out, and why."""

    start: float
    end: float
    text: str
    reason: RemovalReason


@dataclass(frozen=True, slots=True)
class TranscriptWarning:
    """Something the caller should know that is no error. `message` is one sentence."""

    code: WarningCode
    message: str


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Which weights spoke: catalog id and the pinned revision of its files."""

    id: str
    revision: str


@dataclass(frozen=True, slots=True)
class Language:
    """ISO 639-1 code and how sure we are of it, in [0, 1]; 1.0 where it was given or fixed."""

    code: str
    probability: float


@dataclass(frozen=True, slots=True)
class Transcript:
    """The document that every way in ends in.

    language: None where nothing was said and nothing was given.
    processing_s: wall seconds from first byte to result; rtf: processing_s / duration.
    cached_at: when this was made for an earlier request, in UTC; None where it was made for this one.
    """

    text: str
    segments: tuple[Segment, ...]
    duration: float
    language: Language | None
    coverage: Coverage
    model: ModelRef
    task: Literal["transcribe", "translate"] = "transcribe"
    removed: tuple[Removal, ...] = ()
    warnings: tuple[TranscriptWarning, ...] = ()
    processing_s: float = 0.0
    rtf: float = 0.0
    channels: int = 1
    cached_at: datetime | None = None

    @property
    def words(self) -> tuple[Word, ...]:
        """All words in time order."""
        return tuple(sorted((w for s in self.segments for w in s.words), key=lambda w: (w.start, w.end)))
