"""Live speech of one channel, recognised by an engine that only takes whole windows.

    samples ─▶ VAD ─▶ endpointing ─▶ utterances ─▶ wishes to decode ─ ─ ▶ interims and finals

What a final is made of follows from the audio and the options alone: an utterance from a little before its
speech to a little after it. When it is decoded does not: as soon as a pause has begun that may end it the
decode is wished for, so that its answer is often there when the pause has lasted long enough.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from voiceforge.speech.audio.level import lifted
from voiceforge.speech.audio.recent import RecentAudio
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import Capabilities, Hypothesis
from voiceforge.speech.options import StreamOptions, VadOptions
from voiceforge.speech.pipeline.channel import WindowAudio
from voiceforge.speech.pipeline.plan import Plan, make_stream_plan
from voiceforge.speech.pipeline.recogniser import (
    DecodeDropped,
    DecodePurpose,
    DecodeResult,
    DecodeWanted,
    Recogniser,
    RecogniserOutput,
    SettledWindow,
)
from voiceforge.speech.pipeline.segments import Span, spread_words
from voiceforge.speech.pipeline.stream_agreement import Agreement, taken_up
from voiceforge.speech.pipeline.stream_final import behind, keeping
from voiceforge.speech.pipeline.trust import Account, without_inventions
from voiceforge.speech.pipeline.windows import Window
from voiceforge.speech.transcript.stream_events import (
    Closed,
    Final,
    Flushed,
    Interim,
    SpeechStarted,
    UtteranceEnd,
)
from voiceforge.speech.transcript.types import Language, TranscriptWarning
from voiceforge.speech.vad.endpointing import (
    Began,
    Ended,
    Endpoint,
    Endpointer,
    EndpointRule,
    Faded,
    Paused,
    Resumed,
    Spoken,
)
from voiceforge.speech.vad.silero import SileroModel, SpeechProbabilities

_FIRST_INTERIM_MS = 400
"""Of speech; there is nothing to be heard in less."""
_SHORTEST_WINDOW_SAMPLES = SAMPLE_RATE_HZ // 10
"""What engines take at least."""


def make_recogniser(
    options: StreamOptions,
    capabilities: Capabilities,
    aligned_languages: Collection[str],
    vad: SileroModel,
    *,
    channel: int = 0,
) -> Recogniser:
    """The recogniser for one channel of a stream.

    Raises:
        UnsupportedOption: the model cannot do what `options` ask.
    """
    return GatedRecogniser(options, capabilities, aligned_languages, SpeechProbabilities(vad), channel)


@dataclass(slots=True)
class _Utterance:
    """One that is open, or that waits for its final.

    audio_start: its first sample, air included. interim_at: the position at which the next interim is due;
    due: one was, while another was still being decoded. shown: the words last heard; untold: they were not
    told yet. told: whether an interim was. goes_on_in: what comes behind the cut that ended it.
    wish: the speculative or final wish that is open; window, answer: of the last of them.
    over: its final was told, or there is none to tell.
    """

    plan: Plan
    start: int
    audio_start: int
    interim_at: int
    agreement: Agreement = field(default_factory=Agreement)
    due: bool = False
    shown: tuple[str, ...] = ()
    shown_of: Spoken | None = None
    untold: bool = False
    told: bool = False
    ended: Ended | None = None
    goes_on_in: _Utterance | None = None
    wish: int | None = None
    window: Window | None = None
    answer: SettledWindow | None = None
    over: bool = False


@dataclass(frozen=True, slots=True)
class _Flush:
    at: int


@dataclass(frozen=True, slots=True)
class _Close:
    at: int


@dataclass(frozen=True, slots=True)
class _Wish:
    utterance: _Utterance
    purpose: DecodePurpose
    audio: WindowAudio
    spoken: Spoken


class Probabilities(Protocol):
    """How likely speech is in the frames of one channel (`SpeechProbabilities`)."""

    def push(self, samples: Waveform) -> list[float]:
        """Of the frames that these samples complete."""
        ...

    def flush(self) -> list[float]:
        """Of the last, incomplete one."""
        ...


class GatedRecogniser:
    """A `Recogniser` over an engine that does not stream by itself.

    Args:
        aligned_languages: languages whose word times the aligner can find.
        probabilities: of this channel, from its first sample on.
    """

    def __init__(
        self,
        options: StreamOptions,
        capabilities: Capabilities,
        aligned_languages: Collection[str],
        probabilities: Probabilities,
        channel: int = 0,
    ) -> None:
        self._capabilities = capabilities
        self._aligned_languages = aligned_languages
        self._probabilities = probabilities
        self._channel = channel
        self._options = options
        self._plan = make_stream_plan(options, capabilities, aligned_languages)
        self._padding = min(
            VadOptions().padding_ms * SAMPLE_RATE_HZ // 1000,
            int(capabilities.longest_window_s * SAMPLE_RATE_HZ) // 4,
        )
        self._endpointer = Endpointer(self._rule(options))
        self._recent = RecentAudio()
        self._account = Account()
        self._out: list[RecogniserOutput] = []
        self._open: _Utterance | None = None
        self._waiting: deque[_Utterance | _Flush | _Close] = deque()
        """In the order in which they are to be told: utterances that are over, and what was promised to be
        told behind them."""
        self._wishes: dict[int, _Wish] = {}
        self._wish_count = 0
        self._interim: int | None = None
        self._finals = 0
        self._taken_until = 0
        """The last sample that belongs to an utterance that is over."""
        self._told_until = 0.0
        self._last_word_end: float | None = None
        """Of the last final, while `UtteranceEnd` is still to be told."""
        self._closed = False

    @property
    def received_samples(self) -> int:
        return self._recent.received

    @property
    def account(self) -> Account:
        return self._account

    @property
    def warnings(self) -> tuple[TranscriptWarning, ...]:
        if self._plan.word_times != "estimate":
            return self._plan.warnings
        estimated = TranscriptWarning("words_estimated", "word times are estimated for this language")
        return (*self._plan.warnings, estimated)

    def push(self, samples: Waveform) -> list[RecogniserOutput]:
        self._recent.append(samples)
        self._judge(self._probabilities.push(samples))
        self._forget()
        return self._take_out()

    def finalize(self) -> list[RecogniserOutput]:
        at = self.received_samples
        self._heed(self._endpointer.end(at, "finalize"))
        self._waiting.append(_Flush(at))
        self._tell()
        return self._take_out()

    def configure(self, options: StreamOptions) -> list[RecogniserOutput]:
        self._plan = make_stream_plan(options, self._capabilities, self._aligned_languages)
        self._options = options
        self._endpointer.rule = self._rule(options)
        return self._take_out()

    def close(self) -> list[RecogniserOutput]:
        if not self._closed:
            self._closed = True
            at = self.received_samples
            self._judge(self._probabilities.flush())
            self._heed(self._endpointer.end(at, "close"))
            self._waiting.append(_Close(at))
            self._tell()
        return self._take_out()

    def decoded(self, wish: int, result: DecodeResult) -> list[RecogniserOutput]:
        known = self._wishes.pop(wish, None)
        if known is not None:
            if known.purpose == "interim":
                self._take_interim(known, result)
            else:
                self._take_final(known, result)
            self._tell()
        return self._take_out()

    # -- listening

    def _judge(self, probabilities: list[float]) -> None:
        for probability in probabilities:
            self._heed(self._endpointer.judge(probability))
            self._wish_for_interim()
            self._tell_utterance_end()

    def _heed(self, endpoints: list[Endpoint]) -> None:
        for endpoint in endpoints:
            match endpoint:
                case Began(start):
                    self._begin(start)
                    self._out.append(SpeechStarted(self._channel, start / SAMPLE_RATE_HZ))
                case Paused(spoken) if not self._closed:
                    self._speculate(spoken)
                case Resumed():
                    self._drop_speculation()
                case Ended():
                    self._end(endpoint)
                case Faded():
                    self._open = None

    def _begin(self, start: int) -> _Utterance:
        self._last_word_end = None
        audio_start = max(start - self._padding, self._taken_until, 0)
        first_ms = min(_FIRST_INTERIM_MS, self._options.interim_every_ms)
        interim_at = start + first_ms * SAMPLE_RATE_HZ // 1000
        self._open = _Utterance(self._plan, start, audio_start, interim_at)
        return self._open

    def _end(self, ended: Ended) -> None:
        utterance, self._open = self._open, None
        assert utterance is not None
        utterance.ended = ended
        if ended.reason != "max_length":
            self._drop_interim()
        spoken = self._received_part(ended.spoken)
        self._taken_until = spoken.tail_end
        self._waiting.append(utterance)
        window = self._window(utterance, spoken, spoken.tail_end)
        if utterance.window != window:
            self._drop_speculation(utterance)
            self._wish(utterance, "final", spoken, window)
        since = self._endpointer.open_since
        if ended.goes_on and since is not None:
            next_one = utterance.goes_on_in = self._begin(since)
            next_one.interim_at = self._endpointer.position + self._interim_every
        self._tell()

    def _received_part(self, spoken: Spoken) -> Spoken:
        """The last frame is judged filled up with silence: speech may end after the audio."""
        at = self.received_samples
        if max(spoken.end, spoken.tail_end) <= at:
            return spoken
        *before, last = spoken.regions
        regions = (*before, replace(last, end=min(last.end, at)))
        return Spoken(spoken.start, min(spoken.end, at), min(spoken.tail_end, at), regions)

    def _window(self, utterance: _Utterance, spoken: Spoken, end: int) -> Window:
        start = max(min(utterance.audio_start, end - _SHORTEST_WINDOW_SAMPLES), 0)
        return Window(start, end, spoken.regions)

    def _forget(self) -> None:
        """Keep the open utterance, and the air before one that may begin, or may just have begun."""
        if self._open is not None:
            needed = self._open.audio_start
        else:
            since = self._endpointer.open_since
            needed = (self._endpointer.position if since is None else since) - self._padding
        self._recent.forget(needed - _SHORTEST_WINDOW_SAMPLES)

    # -- wishing

    def _wish(self, utterance: _Utterance, purpose: DecodePurpose, spoken: Spoken, window: Window) -> int:
        samples = lifted(self._recent.cut(window.start, window.end))
        return self._wish_for(utterance, purpose, spoken, WindowAudio(self._channel, window, samples))

    def _wish_for(
        self, utterance: _Utterance, purpose: DecodePurpose, spoken: Spoken, audio: WindowAudio
    ) -> int:
        number = self._wish_count
        self._wish_count += 1
        plan = utterance.plan
        if purpose == "interim":
            plan = replace(plan, decode=replace(plan.decode, words=False), word_times="estimate")
        else:
            utterance.wish, utterance.window, utterance.answer = number, audio.window, None
        self._wishes[number] = _Wish(utterance, purpose, audio, spoken)
        self._out.append(DecodeWanted(number, purpose, audio, plan))
        return number

    def _drop(self, wish: int) -> None:
        if self._wishes.pop(wish, None) is not None:
            self._out.append(DecodeDropped(wish))

    def _speculate(self, spoken: Spoken) -> None:
        assert self._open is not None
        self._wish(self._open, "speculative", spoken, self._window(self._open, spoken, spoken.tail_end))

    def _drop_speculation(self, utterance: _Utterance | None = None) -> None:
        utterance = utterance or self._open
        assert utterance is not None
        if utterance.wish is not None:
            self._drop(utterance.wish)
        utterance.wish = utterance.window = utterance.answer = None

    def _drop_interim(self) -> None:
        if self._interim is not None:
            self._drop(self._interim)
            self._interim = None

    def _wish_for_interim(self) -> None:
        """Where one is due; in a pause a speculation says as much."""
        utterance, position = self._open, self._endpointer.position
        if utterance is None or not self._options.interim or self._endpointer.paused or self._closed:
            return
        if position >= utterance.interim_at:
            utterance.interim_at = position + self._interim_every
            utterance.due = True
        if utterance.due and self._interim is None:
            utterance.due = False
            spoken = self._endpointer.so_far()
            window = self._window(utterance, spoken, position)
            self._interim = self._wish(utterance, "interim", spoken, window)

    @property
    def _interim_every(self) -> int:
        return self._options.interim_every_ms * SAMPLE_RATE_HZ // 1000

    def _rule(self, options: StreamOptions) -> EndpointRule:
        capabilities = self._capabilities
        longest_s = min(options.max_utterance_s or capabilities.best_window_s, capabilities.longest_window_s)
        endpoint_ms = options.endpointing_ms
        rule = EndpointRule(
            threshold=options.vad_threshold,
            endpoint_ms=options.utterance_end_ms if endpoint_ms is None else endpoint_ms,
            max_utterance_samples=0,
            min_utterance_ms=options.min_utterance_ms,
        )
        air = self._padding + rule.tail_ms * SAMPLE_RATE_HZ // 1000
        longest = min(
            int(longest_s * SAMPLE_RATE_HZ), int(capabilities.longest_window_s * SAMPLE_RATE_HZ) - air
        )
        return replace(rule, max_utterance_samples=longest)

    # -- what was heard

    def _take_interim(self, wish: _Wish, result: DecodeResult) -> None:
        self._interim = None
        if isinstance(result, Hypothesis) and not wish.utterance.over:
            texts = self._trusted(result, wish.audio.window)
            wish.utterance.agreement.hear(texts)
            self._hold(wish, texts)
        self._wish_for_interim()

    def _trusted(self, hypothesis: Hypothesis, window: Window) -> list[str]:
        kept = (
            without_inventions(segment, window.regions, window.start, window.end - window.start)[0].text
            for segment in hypothesis.segments
        )
        return " ".join(kept).split()

    def _hold(self, wish: _Wish, texts: Sequence[str]) -> None:
        """Have it told as an interim once it is the turn of its utterance."""
        utterance = wish.utterance
        if texts or utterance.shown:
            utterance.shown, utterance.shown_of, utterance.untold = tuple(texts), wish.spoken, True

    def _take_final(self, wish: _Wish, result: DecodeResult) -> None:
        utterance = wish.utterance
        utterance.wish = None
        if isinstance(result, SettledWindow):
            utterance.answer = result
            if utterance.ended is None and self._options.interim:
                self._hold(wish, " ".join(segment.text for segment in result.segments).split())
            return
        assert result is None
        assert wish.purpose == "speculative", "finals are never shed"
        utterance.window = None
        if utterance.ended is not None:
            self._wish_for(utterance, "final", wish.spoken, wish.audio)

    # -- telling

    def _tell(self) -> None:
        """Everything whose turn it is."""
        while self._waiting:
            first = self._waiting[0]
            match first:
                case _Flush(at):
                    self._out.append(Flushed(at / SAMPLE_RATE_HZ))
                case _Close(at):
                    self._out.append(Closed(at / SAMPLE_RATE_HZ))
                case _Utterance():
                    if first.answer is None:
                        self._tell_interim(first)
                        return
                    self._tell_final(first, first.answer)
            self._waiting.popleft()
        if self._open is not None:
            self._tell_interim(self._open)
        self._tell_utterance_end()

    def _tell_interim(self, utterance: _Utterance) -> None:
        if not utterance.untold or utterance.shown_of is None:
            return
        utterance.untold, utterance.told = False, True
        spoken = utterance.shown_of
        speech = [Span(r.start / SAMPLE_RATE_HZ, r.end / SAMPLE_RATE_HZ) for r in spoken.regions]
        words = spread_words(" ".join(utterance.agreement.show(utterance.shown)), speech)
        self._out.append(
            Interim(
                channel=self._channel,
                utterance=self._finals,
                start=max(spoken.start / SAMPLE_RATE_HZ, self._told_until),
                end=max(spoken.end / SAMPLE_RATE_HZ, self._told_until),
                text=" ".join(word.text for word in words),
                words=words,
                stable=len(utterance.agreement.stable),
            )
        )

    def _tell_final(self, utterance: _Utterance, answer: SettledWindow) -> None:
        assert utterance.ended is not None
        spoken = self._received_part(utterance.ended.spoken)
        speech = Span(spoken.start / SAMPLE_RATE_HZ, spoken.end / SAMPLE_RATE_HZ)
        self._account.add(answer.account)
        utterance.over = True
        segments = behind(
            self._told_until,
            keeping(self._stable(utterance, answer), answer.segments, speech),
            words=utterance.plan.word_times != "none",
        )
        if not segments and utterance.ended.reason != "finalize" and not utterance.told:
            return
        start = max(speech.start, self._told_until)
        final = Final(
            channel=self._channel,
            utterance=self._finals,
            start=min(start, *(segment.start for segment in segments)) if segments else start,
            end=max(speech.end, start, *(segment.end for segment in segments)),
            text=" ".join(segment.text for segment in segments),
            segments=tuple(replace(segment, channel=self._channel) for segment in segments),
            reason=utterance.ended.reason,
            language=self._language(utterance, answer),
        )
        self._finals += 1
        self._told_until = final.end
        self._out.append(final)
        if segments:
            self._last_word_end = segments[-1].end

    def _stable(self, utterance: _Utterance, answer: SettledWindow) -> tuple[str, ...]:
        """The words that the final has to begin with. Of an utterance that was cut, some that were called
        stable may lie behind the cut: they are what the next one has to begin with."""
        assert utterance.ended is not None
        stable = utterance.agreement.stable
        if utterance.ended.reason != "max_length" or utterance.goes_on_in is None:
            return stable
        texts = " ".join(segment.text for segment in answer.segments).split()
        before_cut = taken_up(texts, stable)
        utterance.goes_on_in.agreement.begin_with(stable[before_cut:])
        return stable[:before_cut]

    def _language(self, utterance: _Utterance, answer: SettledWindow) -> Language | None:
        fixed = utterance.plan.decode.language
        return answer.language if fixed is None else Language(fixed, 1.0)

    def _tell_utterance_end(self) -> None:
        """Not where speech has begun again, and not before every final so far was told."""
        wait_ms, last_word_end = self._options.utterance_end_ms, self._last_word_end
        if wait_ms is None or last_word_end is None or self._waiting or self._open is not None:
            return
        due = last_word_end + wait_ms / 1000
        since = self._endpointer.open_since
        if self._endpointer.position / SAMPLE_RATE_HZ >= due and (
            since is None or since / SAMPLE_RATE_HZ >= due
        ):
            self._last_word_end = None
            self._out.append(UtteranceEnd(self._channel, last_word_end))

    def _take_out(self) -> list[RecogniserOutput]:
        out, self._out = self._out, []
        return out
