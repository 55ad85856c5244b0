"""An engine that says what its script tells it to: no weights, no audio understood, no waiting.

It passes the engine contract suite, so what works with it works with an engine. A script is any
function from (window, options) to a Hypothesis; it may raise, to play a broken runtime, or block
on an event of the test's, to play a slow one. `says` and `says_by_length` make the usual ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from voiceforge.errors import EngineFailed
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import (
    Capabilities,
    DecodeOptions,
    Hypothesis,
    HypothesisSegment,
    Wanted,
    always_wanted,
    go_on,
)
from voiceforge.speech.transcript.types import Language, ModelRef, Word

Script = Callable[[Waveform, DecodeOptions], Hypothesis]

SILENCE_PEAK = 1e-4
"""A window that stays below this is silent, and a `says` script says nothing on it."""

FAKE_MODEL = ModelRef(id="fake", revision="1")

FAKE_CAPABILITIES = Capabilities(
    languages=frozenset({"en", "de", "fr"}),
    longest_window_s=30.0,
    best_window_s=20.0,
    tasks=frozenset({"transcribe", "translate"}),
    word_times=True,
    detects_language=True,
    prompt=True,
    max_keyterms=10,
    temperature=True,
    beam=True,
    max_batch_rows=8,
    parallel_decodes=2,
)
"""Everything, so that a test takes away what it is about (`dataclasses.replace`)."""


def says(text: str, *, language: str = "en") -> Script:
    """`text` in every window that is not silent, its words evenly spread over the window."""
    return lambda window, options: _spoken(text.split(), window, options, language)


def says_by_length(*, language: str = "en") -> Script:
    """`w1 w2 w3 …`, one word per started half second: the text tells how long the window was."""

    def script(window: Waveform, options: DecodeOptions) -> Hypothesis:
        count = -(-window.shape[0] // (SAMPLE_RATE_HZ // 2))
        return _spoken([f"w{index + 1}" for index in range(count)], window, options, language)

    return script


@dataclass(frozen=True, slots=True)
class FakeCall:
    """One `decode` call: the length of each window, in samples, and the options."""

    window_samples: tuple[int, ...]
    options: DecodeOptions


class FakeEngine:
    """Thread-safe. `calls` holds every decode in the order they began; `closed` tells of close()."""

    def __init__(
        self,
        script: Script | None = None,
        *,
        model: ModelRef = FAKE_MODEL,
        capabilities: Capabilities = FAKE_CAPABILITIES,
    ) -> None:
        self._script = says_by_length() if script is None else script
        self._model = model
        self._capabilities = capabilities
        self._lock = threading.Lock()
        self._calls: list[FakeCall] = []
        self._closed = False

    @property
    def model(self) -> ModelRef:
        return self._model

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def calls(self) -> tuple[FakeCall, ...]:
        with self._lock:
            return tuple(self._calls)

    @property
    def closed(self) -> bool:
        return self._closed

    def decode(
        self, windows: Sequence[Waveform], options: DecodeOptions, wanted: Wanted = always_wanted
    ) -> list[Hypothesis]:
        """See `Engine.decode`.

        Raises:
            EngineFailed: it is closed; and whatever the script raises.
        """
        if self._closed:
            raise EngineFailed(f"model {self._model.id} is closed")
        with self._lock:
            self._calls.append(FakeCall(tuple(window.shape[0] for window in windows), options))
        answers = []
        for window in windows:
            go_on(wanted)
            answers.append(self._script(window, options))
        return answers

    def close(self) -> None:
        self._closed = True


def _spoken(words: Sequence[str], window: Waveform, options: DecodeOptions, language: str) -> Hypothesis:
    code = options.language or language
    heard = Language(code, 1.0 if options.language else 0.9)
    duration_s = window.shape[0] / SAMPLE_RATE_HZ
    if not words or float(np.abs(window).max(initial=0.0)) < SILENCE_PEAK:
        return Hypothesis(segments=(), language=heard if options.language else None)
    step = duration_s / len(words)
    timed = tuple(
        Word(word, start=index * step, end=min((index + 1) * step, duration_s), confidence=0.9)
        for index, word in enumerate(words)
    )
    segment = HypothesisSegment(
        start=0.0,
        end=duration_s,
        text=" ".join(words),
        avg_logprob=-0.1,
        no_speech_prob=0.01,
        words=timed if options.words else (),
        temperature=options.temperature or 0.0,
    )
    return Hypothesis(segments=(segment,), language=heard)
