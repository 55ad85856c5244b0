"""A member aligning text with samples: {"align": text} and the samples ─▶ ◀─ {"words"}, over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple

import numpy as np

from voiceforge.infra.audiohost.line import Line, Parcel
from voiceforge.speech.alignment.aligner import Aligner


class AlignCraft:
    """See `Craft`.

    Args:
        aligner: makes one that is ready to align.
    """

    def __init__(self, aligner: Callable[[], Aligner]) -> None:
        self._make_aligner = aligner
        self._aligner: Aligner | None = None

    def prepare(self) -> None:
        if self._aligner is None:
            self._aligner = self._make_aligner()

    def work(self, order: Parcel, line: Line) -> bool:
        assert self._aligner is not None
        words = self._aligner.align(order.arrays[0].view(np.float32), order.message["align"])
        line.send({"words": [astuple(word) for word in words], "over": True, "fit": True})
        return True
