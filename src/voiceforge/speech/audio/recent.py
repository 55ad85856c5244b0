"""The last of a stream's audio: what may still be needed of it, and nothing older."""

from __future__ import annotations

import numpy as np

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform

_LEAST_ROOM = SAMPLE_RATE_HZ


class RecentAudio:
    """Append samples, cut stretches out by their place in the stream, forget what nobody needs.

    Samples of any number cost the same, however many pieces they come in; memory is at most four times what
    is kept, and a second at least.
    """

    def __init__(self) -> None:
        self._room = np.empty(_LEAST_ROOM, np.float32)
        self._length = 0
        self._first = 0
        self._needed_from = 0

    @property
    def received(self) -> int:
        """Samples appended so far."""
        return self._first + self._length

    def append(self, samples: Waveform) -> None:
        """samples: float32, shape (n_samples,); copied."""
        if self._length + len(samples) > len(self._room):
            self._make_room(len(samples))
        self._room[self._length : self._length + len(samples)] = samples
        self._length += len(samples)

    def cut(self, start: int, end: int) -> Waveform:
        """A copy of the samples from `start` up to, not including, `end`; all of them must still be kept."""
        assert self._needed_from <= start <= end <= self.received
        return self._room[start - self._first : end - self._first].copy()

    def forget(self, before: int) -> None:
        """Nothing from before sample `before` will be asked for again."""
        self._needed_from = max(self._needed_from, min(before, self.received))

    def _make_room(self, more: int) -> None:
        kept = self._room[self._needed_from - self._first : self._length]
        wanted = max(_LEAST_ROOM, 2 * (len(kept) + more))
        room = self._room if wanted <= len(self._room) <= 2 * wanted else np.empty(wanted, np.float32)
        room[: len(kept)] = kept
        self._room, self._length, self._first = room, len(kept), self._needed_from
