"""Chunks: what a long transcription has done so far, in pieces that a later run can start from.

A chunk holds windows that follow each other in the order they are settled, and everything the rest of the run
needs of them. A later run listens to the recording again, which is cheap, and compares: a window that a chunk
holds is not recognised again.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.pipeline.channel import WindowAudio
from voiceforge.speech.pipeline.trust import Account
from voiceforge.speech.transcript.events import TranscribeEvent
from voiceforge.speech.transcript.types import Gap, ModelRef, Removal, Segment

CHUNK_S = 30.0
"""Seconds of windows in a chunk: what a crash costs at most, beside what was being recognised ahead."""

PIPELINE_VERSION = 1
"""To be raised with any change after which chunks of an earlier pipeline must not be used."""


@dataclass(frozen=True, slots=True)
class WindowSpan:
    """Where a window lies: samples from the start of its channel."""

    channel: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class LanguageMass:
    """How long a language was heard, and how surely: seconds of speech, and seconds × probability."""

    code: str
    speech_s: float
    mass: float


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums from the start of the recording. Not the chunk's own share: added up in another order, they would
    differ in the last digit. processing_s: wall seconds, those of earlier runs included."""

    speech_s: float
    transcribed_s: float
    processing_s: float
    languages: tuple[LanguageMass, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What became of windows that follow each other.

    index: 0 for the first of a recording. A chunk takes the place of an earlier one of its index and of all
        that came after that.
    fingerprint: of the run that made it; see `fingerprint`.
    first_window: how many windows come before it.
    start, end: up to where everything was done before and with it, in seconds.
    segments, gaps, removed: of these windows, in the order they were found; `segments` with words.
    totals: at its end.
    """

    index: int
    fingerprint: str
    first_window: int
    start: float
    end: float
    windows: tuple[WindowSpan, ...]
    segments: tuple[Segment, ...]
    gaps: tuple[Gap, ...]
    removed: tuple[Removal, ...]
    totals: Totals

    @property
    def past_window(self) -> int:
        """How many windows are done with it."""
        return self.first_window + len(self.windows)


@dataclass(frozen=True, slots=True)
class ChunkDone:
    """A chunk is settled; its segments were told before."""

    chunk: Chunk


WorkEvent = TranscribeEvent | ChunkDone


def fingerprint(options: TranscribeOptions, model: ModelRef, recipe: str) -> str:
    """A digest that is equal where one run may go on with the chunks of another on the same recording.

    Args:
        recipe: what else changes a result, alike for all requests: the program's version.
    """
    # The repr of a frozen dataclass names every field and quotes every text: nothing is left out.
    whole = repr((PIPELINE_VERSION, recipe, model.id, model.revision, options))
    return hashlib.sha256(whole.encode()).hexdigest()


class Replay:
    """Compares the windows that are heard with those of earlier chunks, one by one from the first."""

    def __init__(self, done: Sequence[Chunk], wanted: str) -> None:
        """
        Args:
            done: in order. What comes after the first that does not follow from the one before, or that has
                not the fingerprint `wanted`, is not used.
        """
        self._left = deque(_usable(done, wanted))
        self._held: list[WindowAudio] = []
        self.end = self._left[-1].end if self._left else 0.0

    @property
    def held(self) -> Sequence[WindowAudio]:
        """Windows that fit so far, of a chunk that is not complete."""
        return self._held

    def hear(self, audio: WindowAudio) -> Chunk | list[WindowAudio]:
        """The chunk that `audio` completes; or the windows that are to be recognised, which are none while a
        chunk is not complete, and from the first that fits no more on all there are."""
        self._held.append(audio)
        if not self._left:
            return self.release()
        chunk = self._left[0]
        if chunk.windows[len(self._held) - 1] != _span(audio):
            self._left.clear()
            return self.release()
        if len(self._held) < len(chunk.windows):
            return []
        self._held.clear()
        return self._left.popleft()

    def release(self) -> list[WindowAudio]:
        """The windows that are held back: what was to complete their chunk has not come."""
        released, self._held = self._held, []
        return released


def _usable(done: Sequence[Chunk], wanted: str) -> list[Chunk]:
    usable: list[Chunk] = []
    windows = 0
    for index, chunk in enumerate(done):
        follows = (chunk.index, chunk.first_window) == (index, windows)
        if not (follows and chunk.windows and chunk.fingerprint == wanted):
            break
        usable.append(chunk)
        windows = chunk.past_window
    return usable


class ChunkRecorder:
    """Collects settled windows until they make a chunk.

    Args:
        chunk_s: seconds of windows that are enough.
    """

    def __init__(self, account: Account, own: str, chunk_s: float) -> None:
        self._account = account
        self._fingerprint = own
        self._enough_samples = chunk_s * SAMPLE_RATE_HZ
        self._index = 0
        self._first_window = 0
        self._start = 0.0
        self._windows: list[WindowSpan] = []
        self._segments: list[Segment] = []
        self._gaps = self._removed = 0

    def restored(self, chunk: Chunk) -> None:
        """Go on behind a chunk that the account knows of already."""
        self._next_after(chunk)

    def settled(self, audio: WindowAudio, segments: Sequence[Segment]) -> None:
        self._windows.append(_span(audio))
        self._segments += segments

    @property
    def full(self) -> bool:
        return sum(window.end - window.start for window in self._windows) >= self._enough_samples

    def take(self, end: float, processing_s: float, languages: Sequence[LanguageMass]) -> Chunk:
        """The chunk of what was settled since the last.

        Args:
            end: up to where everything is done, in seconds.
        """
        account = self._account
        chunk = Chunk(
            index=self._index,
            fingerprint=self._fingerprint,
            first_window=self._first_window,
            start=self._start,
            end=max(self._start, end),
            windows=tuple(self._windows),
            segments=tuple(self._segments),
            gaps=tuple(account.gaps[self._gaps :]),
            removed=tuple(account.removed[self._removed :]),
            totals=Totals(account.speech_s, account.transcribed_s, processing_s, tuple(languages)),
        )
        self._next_after(chunk)
        return chunk

    def _next_after(self, chunk: Chunk) -> None:
        self._index = chunk.index + 1
        self._first_window = chunk.past_window
        self._start = chunk.end
        self._windows, self._segments = [], []
        self._gaps, self._removed = len(self._account.gaps), len(self._account.removed)


def _span(audio: WindowAudio) -> WindowSpan:
    return WindowSpan(audio.channel, audio.window.start, audio.window.end)
