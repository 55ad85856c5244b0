"""What an aligner is: it is given what was said, and finds when."""

from __future__ import annotations

from typing import Protocol

from voiceforge.speech.audio.waveform import Waveform
from voiceforge.speech.transcript.types import Word


class Aligner(Protocol):
    """Finds the times of known words. Safe to call from several threads."""

    @property
    def languages(self) -> frozenset[str]:
        """ISO 639-1 codes it can align."""
        ...

    def align(self, samples: Waveform, text: str) -> tuple[Word, ...]:
        """Give every word of `text` a time.

        Args:
            samples: float32, shape (n_samples,), 16 kHz mono, in [-1, 1]; not modified.
            text: what is said in it, as written.

        Returns:
            One `Word` per item of `text.split()`, in order and as written; times in seconds from the
            start of `samples`, never overlapping, never outside it. Words whose times are a guess are
            `estimated`; where the text does not fit the audio at all, that is every word.

        Raises:
            DependencyMissing: the library behind it is not installed.
        """
        ...
