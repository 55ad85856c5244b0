"""How loud a recording is, and the gain that makes a quiet one usable.

What a level means to a caller (warnings) is decided by who asks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voiceforge.speech.audio.waveform import Waveform

SILENCE_RMS = 0.001
"""-60 dBFS: below it a recording holds nothing one could hear at a normal setting."""
CLIP_LEVEL = 0.99
"""Where samples count as clipped; resampling moves flat tops a little off full scale."""
CLIPPED_FRACTION = 0.001
"""A thousandth of all samples at full scale is audible distortion; a few peaks are not."""

TARGET_PEAK = 0.95
MAX_GAIN = 10.0 ** (30.0 / 20.0)
"""+30 dB."""


@dataclass(frozen=True, slots=True)
class ChannelLevel:
    """rms, peak: linear, full scale 1.0. clipped_fraction: share of samples at full scale, in [0, 1]."""

    rms: float
    peak: float
    clipped_fraction: float

    @property
    def silent(self) -> bool:
        return self.rms < SILENCE_RMS

    @property
    def clipped(self) -> bool:
        return self.clipped_fraction >= CLIPPED_FRACTION


class LevelMeter:
    """Feed it every block before any gain; read `levels` at the end, one per row."""

    def __init__(self, channel_count: int) -> None:
        self._samples = 0
        self._energy = [0.0] * channel_count
        self._peak = [0.0] * channel_count
        self._clipped = [0] * channel_count

    def update(self, block: NDArray[np.float32]) -> None:
        self._samples += block.shape[1]
        for index, row in enumerate(block):
            if not row.size:
                continue
            self._energy[index] += _energy(row)
            peak = _peak(row)
            self._peak[index] = max(self._peak[index], peak)
            if peak >= CLIP_LEVEL:
                self._clipped[index] += int(np.count_nonzero(np.abs(row) >= CLIP_LEVEL))

    @property
    def levels(self) -> tuple[ChannelLevel, ...]:
        count = max(1, self._samples)
        return tuple(
            ChannelLevel(rms=math.sqrt(energy / count), peak=peak, clipped_fraction=clipped / count)
            for energy, peak, clipped in zip(self._energy, self._peak, self._clipped, strict=True)
        )


def lifted(samples: Waveform) -> Waveform:
    """The same sound with its peak at 0.95, so that quiet recordings are heard as well as loud ones.

    Args:
        samples: float32, shape (n_samples,); not modified.

    Returns:
        A copy, raised by at most 30 dB. What holds no sound (RMS below 0.001) is returned as it is.
    """
    if not samples.size or _energy(samples) < SILENCE_RMS**2 * samples.size:
        return samples
    gain = min(MAX_GAIN, TARGET_PEAK / _peak(samples))
    return samples * np.float32(gain)


def _peak(row: NDArray[np.float32]) -> float:
    return max(float(row.max()), -float(row.min()))


def _energy(row: NDArray[np.float32]) -> float:
    return float(np.dot(row, row))
