"""A scripted world for live streams: what a sample's value is, the VAD takes for its speech probability, and
an engine that hears the words that lie in a window, each a fifth of a second long and named for its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import Capabilities, Hypothesis, HypothesisSegment
from voiceforge.speech.options import StreamOptions
from voiceforge.speech.pipeline.recogniser import (
    DecodeDropped,
    DecodeResult,
    DecodeWanted,
    RecogniserOutput,
    SettledWindow,
)
from voiceforge.speech.pipeline.stream import GatedRecogniser
from voiceforge.speech.pipeline.trust import Account
from voiceforge.speech.pipeline.windows import Window
from voiceforge.speech.transcript.stream_events import Final, Interim, StreamEvent
from voiceforge.speech.transcript.types import Segment, Word
from voiceforge.speech.vad.silero import FRAME_SAMPLES

GREEDY = Capabilities(languages=frozenset({"en"}), longest_window_s=30.0, best_window_s=12.0)
WORD_SAMPLES = SAMPLE_RATE_HZ // 5


class ScriptedProbabilities:
    """Every frame is as likely speech as its first sample says."""

    def __init__(self) -> None:
        self._pending = np.zeros(0, np.float32)

    def push(self, samples: Waveform) -> list[float]:
        pending = np.concatenate([self._pending, samples])
        whole = len(pending) // FRAME_SAMPLES * FRAME_SAMPLES
        self._pending = pending[whole:]
        return [float(p) for p in pending[:whole:FRAME_SAMPLES]]

    def flush(self) -> list[float]:
        rest = len(self._pending)
        return self.push(np.zeros(FRAME_SAMPLES - rest, np.float32)) if rest else []


def recogniser(options: StreamOptions | None = None, capabilities: Capabilities = GREEDY) -> GatedRecogniser:
    return GatedRecogniser(options or StreamOptions(), capabilities, (), ScriptedProbabilities())


def audio(*runs: tuple[float, float]) -> Waveform:
    """Runs of (seconds, speech probability)."""
    return np.concatenate(
        [np.zeros(0, np.float32)]
        + [np.full(int(seconds * SAMPLE_RATE_HZ), p, np.float32) for seconds, p in runs]
    )


def words_in(window: Window) -> list[Word]:
    """Those whose middle is speech of the window."""
    found = []
    for number in range(window.start // WORD_SAMPLES, window.end // WORD_SAMPLES + 1):
        middle = number * WORD_SAMPLES + WORD_SAMPLES // 2
        if any(r.start <= middle < r.end for r in window.regions):
            start, end = number * WORD_SAMPLES, (number + 1) * WORD_SAMPLES
            found.append(Word(f"w{number}", start / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ))
    return found


def heard(text: str) -> Hypothesis:
    return Hypothesis((HypothesisSegment(0.0, 1.0, text),) if text else ())


def settled(window: Window, words: Sequence[Word]) -> SettledWindow:
    account = Account()
    for region in window.regions:
        account.spoken(region.start / SAMPLE_RATE_HZ, region.end / SAMPLE_RATE_HZ, with_text=bool(words))
    text = " ".join(word.text for word in words)
    segment = Segment(0, words[0].start, words[-1].end, text, words=tuple(words)) if words else None
    return SettledWindow((segment,) if segment else (), None, account)


def answer(wanted: DecodeWanted) -> DecodeResult:
    """The truth."""
    words = words_in(wanted.audio.window)
    if wanted.purpose == "interim":
        return heard(" ".join(word.text for word in words))
    return settled(wanted.audio.window, words)


_Kind = TypeVar("_Kind")
Answer = Callable[[DecodeWanted], DecodeResult]


class Driver:
    """Answers every wish as soon as the call that made it returns."""

    def __init__(self, driven: GatedRecogniser, answer: Answer = answer) -> None:
        self.recogniser = driven
        self.events: list[StreamEvent] = []
        self.wishes: list[DecodeWanted] = []
        self.dropped: set[int] = set()
        self._answer = answer

    def push(self, samples: Waveform, pieces: Iterable[int] = ()) -> None:
        """In pieces of these lengths, and then the rest."""
        at = 0
        for length in pieces:
            self.take(self.recogniser.push(samples[at : at + length]))
            at += length
        self.take(self.recogniser.push(samples[at:]))

    def finalize(self) -> None:
        self.take(self.recogniser.finalize())

    def close(self) -> None:
        self.take(self.recogniser.close())

    def take(self, told: list[RecogniserOutput]) -> None:
        for output in told:
            if isinstance(output, DecodeDropped):
                self.dropped.add(output.id)
            elif isinstance(output, DecodeWanted):
                self.wishes.append(output)
            else:
                self.events.append(output)
        for output in told:
            if isinstance(output, DecodeWanted) and output.id not in self.dropped:
                self.take(self.recogniser.decoded(output.id, self._answer(output)))

    def of(self, kind: type[_Kind]) -> list[_Kind]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def finals(self) -> list[Final]:
        return self.of(Final)

    @property
    def interims(self) -> list[Interim]:
        return self.of(Interim)

    @property
    def text(self) -> str:
        return " ".join(final.text for final in self.finals)
