"""Live speech of one channel, recognised by an engine that only takes whole windows.

    samples ─▶ VAD ─▶ endpointing ─▶ utterances ─▶ wishes to decode ─ ─ ▶ interims and finals

What a final is made of follows from the audio and the options alone: an utterance from a little before its
speech to a little after it. When it is decoded does not: as soon as a pause has begun that may end it the
decode is wished for, so that its answer is often there when the pause has lasted long enough.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Protocol

from voiceforge.speech.audio.level import lifted
from voiceforge.speech.audio.recent import RecentAudio
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import Capabilities, Hypothesis
from voiceforge.speech.options import StreamOptions, VadOptions
from voiceforge.speech.pipeline.channel import WindowAudio
from voiceforge.speech.pipeline.plan import make_stream_plan
from voiceforge.speech.pipeline.recogniser import (
    DecodeDropped,
    DecodePurpose,
    DecodeResult,
    DecodeWanted,
    Recogniser,
    RecogniserOutput,
    SettledWindow,
)
from voiceforge.speech.pipeline.stream_telling import Telling, Utterance
from voiceforge.speech.pipeline.trust import Account, without_inventions
from voiceforge.speech.pipeline.windows import Window
from voiceforge.speech.transcript.stream_events import Closed, Flushed, SpeechStarted
from voiceforge.speech.transcript.types import TranscriptWarning
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

_FIRST_INTERIM_MS = 320
"""Of speech; there is hardly a word to be heard in less."""
_EARLY_SAMPLES = SAMPLE_RATE_HZ * 5 // 2
"""Of an utterance: where hypotheses of less agree in part only, they are wrong in that part too often."""
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
class _Heard:
    """An utterance while it is being heard, and until its final was decoded.

    audio_start: its first sample, air included. interim_at: the position at which the next interim is due;
    due: one was, while another was still being decoded.
    wish: the speculative or final wish that is open; window: of the last of them.
    """

    utterance: Utterance
    audio_start: int
    interim_at: int
    due: bool = False
    wish: int | None = None
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class _Wish:
    heard: _Heard
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
        self._telling = Telling(channel)
        self._out: list[RecogniserOutput] = []
        self._open: _Heard | None = None
        self._taken_until = 0
        """The last sample that belongs to an utterance that is over."""
        self._wishes: dict[int, _Wish] = {}
        self._wish_count = 0
        self._interim: int | None = None
        """The wish for one, while it is open."""
        self._closed = False

    @property
    def received_samples(self) -> int:
        return self._recent.received

    @property
    def account(self) -> Account:
        return self._telling.account

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
        self._telling.wait_for(Flushed(at / SAMPLE_RATE_HZ))
        self._tell()
        return self._take_out()

    def configure(self, options: StreamOptions) -> list[RecogniserOutput]:
        self._plan = make_stream_plan(options, self._capabilities, self._aligned_languages)
        self._options = options
        self._endpointer.rule = self._rule(options)
        if not options.interim:
            self._drop_interim()
        return self._take_out()

    def close(self) -> list[RecogniserOutput]:
        if not self._closed:
            self._closed = True
            at = self.received_samples
            self._judge(self._probabilities.flush())
            self._heed(self._endpointer.end(at, "close"))
            self._telling.wait_for(Closed(at / SAMPLE_RATE_HZ))
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

    def _begin(self, start: int) -> _Heard:
        audio_start = max(start - self._padding, self._taken_until, 0)
        first_ms = min(_FIRST_INTERIM_MS, self._options.interim_every_ms)
        interim_at = start + first_ms * SAMPLE_RATE_HZ // 1000
        self._open = _Heard(Utterance(self._plan, start), audio_start, interim_at)
        return self._open

    def _end(self, ended: Ended) -> None:
        heard, self._open = self._open, None
        assert heard is not None
        if ended.reason != "max_length":
            self._drop_interim()
        spoken = self._received_part(ended.spoken)
        self._taken_until = spoken.tail_end
        heard.utterance.spoken, heard.utterance.reason = spoken, ended.reason
        self._telling.wait_for(heard.utterance)
        window = self._window(heard, spoken, spoken.tail_end)
        if heard.window != window:
            self._drop_speculation(heard)
            self._wish(heard, "final", spoken, window)
        since = self._endpointer.open_since
        if ended.goes_on and since is not None:
            next_one = self._begin(since)
            next_one.interim_at = self._endpointer.position + self._interim_every
            heard.utterance.next_one = next_one.utterance
        self._tell()

    def _received_part(self, spoken: Spoken) -> Spoken:
        """The last frame is judged filled up with silence: speech may end after the audio."""
        at = self.received_samples
        if max(spoken.end, spoken.tail_end) <= at:
            return spoken
        *before, last = spoken.regions
        regions = (*before, replace(last, end=min(last.end, at)))
        return Spoken(spoken.start, min(spoken.end, at), min(spoken.tail_end, at), regions)

    def _window(self, heard: _Heard, spoken: Spoken, end: int) -> Window:
        start = max(min(heard.audio_start, end - _SHORTEST_WINDOW_SAMPLES), 0)
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

    def _wish(self, heard: _Heard, purpose: DecodePurpose, spoken: Spoken, window: Window) -> int:
        samples = lifted(self._recent.cut(window.start, window.end))
        return self._wish_for(heard, purpose, spoken, WindowAudio(self._channel, window, samples))

    def _wish_for(self, heard: _Heard, purpose: DecodePurpose, spoken: Spoken, audio: WindowAudio) -> int:
        number = self._wish_count
        self._wish_count += 1
        plan = heard.utterance.plan
        if purpose == "interim":
            plan = replace(plan, decode=replace(plan.decode, words=False), word_times="estimate")
        else:
            heard.wish, heard.window, heard.utterance.answer = number, audio.window, None
        self._wishes[number] = _Wish(heard, purpose, audio, spoken)
        self._out.append(DecodeWanted(number, purpose, audio, plan))
        return number

    def _drop(self, wish: int) -> None:
        if self._wishes.pop(wish, None) is not None:
            self._out.append(DecodeDropped(wish))

    def _speculate(self, spoken: Spoken) -> None:
        assert self._open is not None
        self._wish(self._open, "speculative", spoken, self._window(self._open, spoken, spoken.tail_end))

    def _drop_speculation(self, heard: _Heard | None = None) -> None:
        heard = heard or self._open
        assert heard is not None
        if heard.wish is not None:
            self._drop(heard.wish)
        heard.wish = heard.window = heard.utterance.answer = None

    def _drop_interim(self) -> None:
        if self._interim is not None:
            self._drop(self._interim)
            self._interim = None

    def _wish_for_interim(self) -> None:
        """Where one is due; in a pause a speculation says as much."""
        heard, position = self._open, self._endpointer.position
        if heard is None or not self._options.interim or self._endpointer.paused or self._closed:
            return
        if position >= heard.interim_at:
            heard.interim_at = position + self._interim_every
            heard.due = True
        if heard.due and self._interim is None:
            heard.due = False
            spoken = self._endpointer.so_far()
            self._interim = self._wish(heard, "interim", spoken, self._window(heard, spoken, position))

    @property
    def _interim_every(self) -> int:
        return self._options.interim_every_ms * SAMPLE_RATE_HZ // 1000

    def _rule(self, options: StreamOptions) -> EndpointRule:
        endpoint_ms = options.endpointing_ms
        rule = EndpointRule(
            threshold=options.vad_threshold,
            endpoint_ms=options.utterance_end_ms if endpoint_ms is None else endpoint_ms,
            max_utterance_samples=0,
            min_utterance_ms=options.min_utterance_ms,
        )
        air_s = self._padding / SAMPLE_RATE_HZ + rule.tail_ms / 1000
        best_s = self._capabilities.best_window_s - air_s
        most_s = self._capabilities.longest_window_s - air_s
        longest_s = min(options.max_utterance_s or best_s, most_s)
        return replace(rule, max_utterance_samples=int(longest_s * SAMPLE_RATE_HZ))

    # -- what was heard

    def _take_interim(self, wish: _Wish, result: DecodeResult) -> None:
        self._interim = None
        utterance = wish.heard.utterance
        if isinstance(result, Hypothesis) and not utterance.done:
            texts = _trusted(result, wish.audio.window)
            early = wish.spoken.end - wish.spoken.start < _EARLY_SAMPLES
            utterance.agreement.hear(texts, early=early)
            utterance.shown, utterance.shown_of = tuple(texts), wish.spoken
        self._wish_for_interim()

    def _take_final(self, wish: _Wish, result: DecodeResult) -> None:
        heard, utterance = wish.heard, wish.heard.utterance
        heard.wish = None
        if isinstance(result, SettledWindow):
            utterance.answer = result
            if self._options.interim:
                texts = " ".join(segment.text for segment in result.segments).split()
                utterance.shown, utterance.shown_of = tuple(texts), wish.spoken
            return
        assert result is None
        assert wish.purpose == "speculative", "finals are never shed"
        heard.window = None
        if utterance.reason is not None:
            self._wish_for(heard, "final", wish.spoken, wish.audio)

    # -- telling

    def _tell(self) -> None:
        open_one = self._open.utterance if self._open is not None else None
        self._out += self._telling.tell(open_one, self._options.utterance_end_ms)
        self._tell_utterance_end()

    def _tell_utterance_end(self) -> None:
        wait_ms = self._options.utterance_end_ms
        if wait_ms is not None and self._open is None:
            position, since = self._endpointer.position, self._endpointer.open_since
            self._out += self._telling.tell_utterance_end(wait_ms, position, since)

    def _take_out(self) -> list[RecogniserOutput]:
        out, self._out = self._out, []
        return out


def _trusted(hypothesis: Hypothesis, window: Window) -> list[str]:
    """The words of an interim, without loops and inventions."""
    kept = (
        without_inventions(segment, window.regions, window.start, window.end - window.start)[0].text
        for segment in hypothesis.segments
    )
    return " ".join(kept).split()
