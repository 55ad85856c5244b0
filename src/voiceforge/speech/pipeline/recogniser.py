"""What a live recogniser is: samples of one channel go in, events and wishes come out.

    push, finalize, configure, close ─▶ [SpeechStarted, DecodeWanted, …]
    decoded(id, what came of it)     ─▶ [Interim, Final, Flushed, …]

A recogniser is a plain state machine: no asyncio, no threads, no clock. Time is samples received. It never
decodes; it wishes for it, and whoever drives it has that done and brings what came of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from voiceforge.speech.audio.waveform import Waveform
from voiceforge.speech.engines.base import Hypothesis
from voiceforge.speech.options import StreamOptions
from voiceforge.speech.pipeline.channel import WindowAudio
from voiceforge.speech.pipeline.plan import Plan
from voiceforge.speech.pipeline.trust import Account
from voiceforge.speech.transcript.stream_events import StreamEvent
from voiceforge.speech.transcript.types import Language, Segment, TranscriptWarning

DecodePurpose = Literal["interim", "speculative", "final"]


@dataclass(frozen=True, slots=True)
class DecodeWanted:
    """A stretch of speech that is to be decoded, with `plan.decode`; answered once, by `decoded(id, …)`.

    purpose:
        interim: the hypothesis of an utterance that goes on. Answered with the engine's `Hypothesis` as it
            is, or with None where it was shed. There is never more than one of a channel at a time.
        speculative: a pause has begun that may end the utterance. If it does, the answer is its final; if
            not, a `DecodeDropped` follows. Answered like a final; None: it was shed, and will be wished for
            again as a final should the utterance end.
        final: the utterance is over. Answered with a `SettledWindow` (see `settle_wish`); never shed.
    id: counts the wishes of this recogniser from 0.
    audio: what to decode; its samples are float32, 16 kHz mono, already raised to full scale, and nobody else
        holds them. Of a speculative and the final in its place they are the same.
    """

    id: int
    purpose: DecodePurpose
    audio: WindowAudio
    plan: Plan


@dataclass(frozen=True, slots=True)
class DecodeDropped:
    """Nobody needs the answer to the wish `id` any more. One that comes all the same is ignored."""

    id: int


@dataclass(frozen=True, slots=True)
class SettledWindow:
    """What a final was heard to say, as `WindowSettler` leaves it: loops and inventions out, words timed.

    account: of this window alone.
    """

    segments: tuple[Segment, ...]
    language: Language | None
    account: Account


DecodeResult = Hypothesis | SettledWindow | None
RecogniserOutput = StreamEvent | DecodeWanted | DecodeDropped


class Recogniser(Protocol):
    """Listens to one channel. Not thread-safe: one call at a time, from whichever thread."""

    @property
    def received_samples(self) -> int:
        """How much has been pushed."""
        ...

    @property
    def account(self) -> Account:
        """Of all finals told so far, and of the speech in them that has no text."""
        ...

    @property
    def warnings(self) -> tuple[TranscriptWarning, ...]:
        """What of the options in force is ignored or made up for."""
        ...

    def push(self, samples: Waveform) -> list[RecogniserOutput]:
        """Take the next samples of the channel.

        Args:
            samples: float32, shape (n_samples,), 16 kHz mono, in [-1, 1]; any number, also none. Copied.

        Which pieces the audio comes in changes nothing in the finals.
        """
        ...

    def finalize(self) -> list[RecogniserOutput]:
        """End the open utterance, if there is one; `Flushed` is told once everything received so far has had
        its finals, at once where nothing is pending."""
        ...

    def configure(self, options: StreamOptions) -> list[RecogniserOutput]:
        """Go on with other options. What an engine is asked (language, prompt, keyterms, temperature, beam
        size, words) holds from the next utterance on; everything else at once.

        Raises:
            UnsupportedOption: the model cannot do it; nothing has changed.
        """
        ...

    def close(self) -> list[RecogniserOutput]:
        """The channel is over: end the open utterance. `Closed` is told once every final was. Idempotent;
        `push`, `finalize` and `configure` must not follow it, `decoded` will."""
        ...

    def decoded(self, wish: int, result: DecodeResult) -> list[RecogniserOutput]:
        """Bring what came of a wish; in any order. Wishes that were dropped or answered are ignored."""
        ...
