"""What a live stream reports. Every protocol is a translation of these.

Of one channel, in order: SpeechStarted, any Interim, one Final per utterance (more where it was cut because
it grew long) or SpeechEnded, UtteranceEnd. `Flushed` answers a finalize, `Closed` is the last of all.

All times are float seconds from the start of the stream, counted in samples received.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from voiceforge.speech.transcript.types import Language, Segment, Word

EndpointReason = Literal["silence", "max_length", "finalize", "close"]
StreamWarningCode = Literal["not_kept", "kept_later"]


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """`at`: where speech was first heard."""

    channel: int
    at: float


@dataclass(frozen=True, slots=True)
class Interim:
    """What an utterance sounds like so far; the next one, or the final, replaces it.

    utterance: counts the finals of the channel from 0; the final that comes of this has the same number.
    words: with times that are estimated.
    stable: so many of the first words never change again, neither in an interim nor in the final.
    """

    channel: int
    utterance: int
    start: float
    end: float
    text: str
    words: tuple[Word, ...]
    stable: int


@dataclass(frozen=True, slots=True)
class Final:
    """What was said in a stretch of speech; nothing told later changes it, a `Revision` excepted.

    segments: in time order; none where no words were heard in it.
    text: of the segments, joined; it begins with the words an interim called stable.
    reason: what ended it. After `max_length` the same speech goes on in the next final, and so do words that
        were called stable and lie behind the cut.
    """

    channel: int
    utterance: int
    start: float
    end: float
    text: str
    segments: tuple[Segment, ...]
    reason: EndpointReason
    language: Language | None

    @property
    def words(self) -> tuple[Word, ...]:
        return tuple(word for segment in self.segments for word in segment.words)


@dataclass(frozen=True, slots=True)
class SpeechEnded:
    """Speech is over in which no words were heard: this takes the place of its final."""

    channel: int
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class UtteranceEnd:
    """Nothing was said for `utterance_end_ms` after the word that ended there."""

    channel: int
    last_word_end: float


@dataclass(frozen=True, slots=True)
class Flushed:
    """All that was received up to `at` has had its finals: the answer to one finalize."""

    at: float


@dataclass(frozen=True, slots=True)
class Revision:
    """What the finals from `first` to `last` said, heard again by a better model; it replaces them."""

    channel: int
    first: int
    last: int
    text: str
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Warned:
    """The stream goes on, but not all will come of it that was wished for.

    code: "not_kept": of its polishing, nothing or only its beginning; "kept_later": that is to be waited for.
    message: one sentence for a person.
    """

    code: StreamWarningCode
    message: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The last event. duration: seconds of audio that were received."""

    duration: float


StreamEvent = (
    SpeechStarted | Interim | Final | SpeechEnded | UtteranceEnd | Flushed | Revision | Warned | Closed
)
