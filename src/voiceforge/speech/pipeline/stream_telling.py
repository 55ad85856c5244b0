"""What is told of a live channel, in its order: finals one after the other, interims only of the utterance
whose turn it is, and what was promised to be told behind a final not before it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.pipeline.plan import Plan
from voiceforge.speech.pipeline.recogniser import SettledWindow
from voiceforge.speech.pipeline.segments import Span, spread_words
from voiceforge.speech.pipeline.stream_agreement import Agreement, taken_up
from voiceforge.speech.pipeline.stream_final import behind, keeping
from voiceforge.speech.pipeline.trust import Account
from voiceforge.speech.transcript.stream_events import (
    Closed,
    EndpointReason,
    Final,
    Flushed,
    Interim,
    SpeechEnded,
    StreamEvent,
    UtteranceEnd,
)
from voiceforge.speech.transcript.types import Language
from voiceforge.speech.vad.endpointing import Spoken


@dataclass(slots=True)
class Utterance:
    """One that is open, or that waits for its final.

    start: sample at which its speech begins. agreement: of its hypotheses. shown: the words of the last of
        them, heard in `shown_of`.
    told: text and stable words of the interim told last; None: none was.
    spoken, reason: what it was and what ended it, once it is over. next_one: what goes on behind the cut.
    answer: what its final was heard to say. done: its final was told, or there is none to tell.
    """

    plan: Plan
    start: int
    agreement: Agreement = field(default_factory=Agreement)
    shown: tuple[str, ...] = ()
    shown_of: Spoken | None = None
    told: tuple[str, int] | None = None
    spoken: Spoken | None = None
    reason: EndpointReason | None = None
    next_one: Utterance | None = None
    answer: SettledWindow | None = None
    done: bool = False


class Telling:
    """Of one channel. `account`: of all finals told, and of the speech in them without text."""

    def __init__(self, channel: int) -> None:
        self.account = Account()
        self._channel = channel
        self._waiting: deque[Utterance | Flushed | Closed] = deque()
        """Utterances that are over, and what was promised to be told behind them."""
        self._finals = 0
        self._told_until = 0.0
        self._last_word_end: float | None = None
        """Of the last final, while `UtteranceEnd` is still to be told."""

    def wait_for(self, next_one: Utterance | Flushed | Closed) -> None:
        """It is to be told behind all that waits already."""
        self._waiting.append(next_one)

    def tell(self, open_one: Utterance | None, utterance_end_ms: int | None) -> list[StreamEvent]:
        """Everything whose turn it is.

        Args:
            open_one: the utterance that is still going on.
            utterance_end_ms: see `StreamOptions`.
        """
        told: list[StreamEvent] = []
        while self._waiting:
            first = self._waiting[0]
            told += self._utterance_end(utterance_end_ms, _begins(first))
            if isinstance(first, Utterance):
                if first.answer is None:
                    return told + self._interim(first)
                told += self._final(first, first.answer)
            else:
                told.append(first)
            self._waiting.popleft()
        if open_one is not None:
            told += self._utterance_end(utterance_end_ms, _begins(open_one)) + self._interim(open_one)
        return told

    def tell_utterance_end(self, wait_ms: int, position: int, open_since: int | None) -> list[StreamEvent]:
        """If it is time for it: not where speech has begun again, and not before every final was told.

        Args:
            position: samples heard so far.
            open_since: where the speech began that goes on, if any does; also what may be too short.
        """
        if self._waiting:
            return []
        return self._utterance_end(wait_ms, (position if open_since is None else open_since) / SAMPLE_RATE_HZ)

    def _utterance_end(self, wait_ms: int | None, silent_until: float) -> list[StreamEvent]:
        """Nothing is said between the last final and `silent_until`, in seconds."""
        ended = self._last_word_end
        if wait_ms is None or ended is None or silent_until < ended + wait_ms / 1000:
            return []
        self._last_word_end = None
        return [UtteranceEnd(self._channel, ended)]

    def _interim(self, utterance: Utterance) -> list[StreamEvent]:
        """What was heard last, unless that was told."""
        spoken = utterance.shown_of
        if spoken is None:
            return []
        texts = utterance.agreement.show(utterance.shown)
        saying = (" ".join(texts), len(utterance.agreement.stable))
        if saying == (utterance.told or ("", 0)):
            return []
        utterance.told = saying
        speech = [Span(r.start / SAMPLE_RATE_HZ, r.end / SAMPLE_RATE_HZ) for r in spoken.regions]
        text, stable = saying
        return [
            Interim(
                channel=self._channel,
                utterance=self._finals,
                start=max(spoken.start / SAMPLE_RATE_HZ, self._told_until),
                end=max(spoken.end / SAMPLE_RATE_HZ, self._told_until),
                text=text,
                words=spread_words(text, speech),
                stable=stable,
            )
        ]

    def _final(self, utterance: Utterance, answer: SettledWindow) -> list[StreamEvent]:
        """Where there were no words only the end of speech, unless somebody waits for a final; not even that
        where it was cut and goes on."""
        assert utterance.spoken is not None
        assert utterance.reason is not None
        speech = Span(utterance.spoken.start / SAMPLE_RATE_HZ, utterance.spoken.end / SAMPLE_RATE_HZ)
        utterance.done = True
        self.account.add(answer.account)
        segments = behind(
            self._told_until,
            keeping(_promised(utterance, answer), answer.segments, speech),
            words=utterance.plan.word_times != "none",
        )
        start = max(speech.start, self._told_until)
        if not segments and utterance.told is None and utterance.reason != "finalize":
            if utterance.reason == "max_length":
                return []
            return [SpeechEnded(self._channel, start, max(speech.end, start))]
        fixed = utterance.plan.decode.language
        final = Final(
            channel=self._channel,
            utterance=self._finals,
            start=min([start, *(segment.start for segment in segments)]),
            end=max([speech.end, start, *(segment.end for segment in segments)]),
            text=" ".join(segment.text for segment in segments),
            segments=tuple(replace(segment, channel=self._channel) for segment in segments),
            reason=utterance.reason,
            language=answer.language if fixed is None else Language(fixed, 1.0),
        )
        self._finals += 1
        self._told_until = final.end
        if segments:
            self._last_word_end = segments[-1].end
        return [final]


def _promised(utterance: Utterance, answer: SettledWindow) -> tuple[str, ...]:
    """The words that the final has to begin with. Of an utterance that was cut some that were called stable
    may lie behind the cut: they are what the next one has to begin with."""
    stable = utterance.agreement.stable
    if utterance.reason != "max_length" or utterance.next_one is None:
        return stable
    texts = " ".join(segment.text for segment in answer.segments).split()
    before_cut = taken_up(texts, stable)
    utterance.next_one.agreement.begin_with(stable[before_cut:])
    return stable[:before_cut]


def _begins(waiting: Utterance | Flushed | Closed) -> float:
    """Up to where there is only silence behind the one before, in seconds."""
    match waiting:
        case Utterance():
            return waiting.start / SAMPLE_RATE_HZ
        case Flushed():
            return waiting.at
        case Closed():
            return waiting.duration
