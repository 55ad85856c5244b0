"""What an engine is: capabilities as data, and one blocking call that decodes windows.

Engines return hypotheses, never wire types. They never queue and never batch by themselves:
the batcher of the model calls them from its own threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from voiceforge.errors import Cancelled
from voiceforge.speech.audio.waveform import Waveform
from voiceforge.speech.options import Task
from voiceforge.speech.transcript.types import Language, ModelRef, Word


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one loaded model can do.

    languages: ISO 639-1 codes it recognises.
    longest_window_s: the most audio one window may hold, in seconds.
    best_window_s: the length at which accuracy and speed are best; the planner aims at it.
    max_batch_rows: windows one `decode` call may bring; 1: no gain from batching.
    parallel_decodes: `decode` calls that may run at the same time (it must then be thread-safe).
    segment_times: its segments have times of their own; otherwise one segment spans the window.
    max_keyterms: 0 where keyterms are not supported.
    """

    languages: frozenset[str]
    longest_window_s: float
    best_window_s: float
    tasks: frozenset[Task] = frozenset({"transcribe"})
    segment_times: bool = False
    word_times: bool = False
    detects_language: bool = False
    prompt: bool = False
    max_keyterms: int = 0
    temperature: bool = False
    beam: bool = False
    max_batch_rows: int = 1
    parallel_decodes: int = 1


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """The part of a caller's wishes that the engine itself honours. Hashable: windows with equal
    options may share a batch."""

    language: str | None = None
    task: Task = "transcribe"
    words: bool = False
    prompt: str | None = None
    keyterms: tuple[str, ...] = ()
    temperature: float | None = None
    beam_size: int | None = None


@dataclass(frozen=True, slots=True)
class HypothesisSegment:
    """A stretch of recognised text; times in seconds from the start of its window.

    word_confidences: for engines that know how sure they are of a word but not when it was said:
    one number in [0, 1] for each word of `text.split()`, or empty.
    """

    start: float
    end: float
    text: str
    avg_logprob: float | None = None
    no_speech_prob: float | None = None
    words: tuple[Word, ...] = ()
    word_confidences: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()
    temperature: float = 0.0
    compression_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What an engine heard in one window. `segments` in time order, empty where it heard nothing."""

    segments: tuple[HypothesisSegment, ...]
    language: Language | None = None


Wanted = Callable[[], bool]
"""Whether anybody still waits for what is being decoded; quick, and asked from the thread that decodes."""


def always_wanted() -> bool:
    return True


def go_on(wanted: Wanted) -> None:
    """For an engine, wherever it can stop.

    Raises:
        Cancelled: nobody waits any more.
    """
    if not wanted():
        raise Cancelled("nobody waits for this any more")


class Engine(Protocol):
    """One loaded model."""

    @property
    def model(self) -> ModelRef: ...

    @property
    def capabilities(self) -> Capabilities: ...

    def decode(
        self, windows: Sequence[Waveform], options: DecodeOptions, wanted: Wanted = always_wanted
    ) -> list[Hypothesis]:
        """Recognise each window by itself; the text of one never depends on the others.

        Args:
            windows: each float32, shape (n_samples,), 16 kHz mono, 0.1 s up to
                `capabilities.longest_window_s`; not modified.
            options: already checked against `capabilities`.
            wanted: an engine that can stop in the middle asks now and then.

        Returns:
            One hypothesis per window, in order.

        Raises:
            EngineFailed: the runtime broke on this input.
            InvalidRequest: prompt or keyterms are longer than the model can take.
            Cancelled: nobody wanted it any more.
        """
        ...

    def close(self) -> None:
        """Give the memory back. The engine must not be used afterwards."""
        ...
