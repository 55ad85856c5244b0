"""How loud a recording is, and the gain that makes a quiet one usable. Streaming; rows are independent.

Both take blocks shaped (n_rows, n_samples) as `AudioStream.blocks` gives them. What a level means to a
caller (warnings) is decided by who asks.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ

SILENCE_RMS = 0.001
"""-60 dBFS: below it a recording holds nothing one could hear at a normal setting."""
CLIP_LEVEL = 0.99
"""Where samples count as clipped; resampling moves flat tops a little off full scale."""
CLIPPED_FRACTION = 0.001
"""A thousandth of all samples at full scale is audible distortion; a few peaks are not."""

TARGET_PEAK = 0.95
MAX_GAIN_DB = 30.0
LOOK_AHEAD_S = 30
_STEP_SAMPLES = SAMPLE_RATE_HZ // 2
"""Gain is decided per half second counted from the start, whatever the blocks it came in."""
_STEPS_AHEAD = LOOK_AHEAD_S * SAMPLE_RATE_HZ // _STEP_SAMPLES
_SOUND_RMS = SILENCE_RMS
"""A half second below this is no sound to be lifted: noise of the converter, digital silence."""


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


@dataclass(slots=True)
class _Step:
    """Half a second waiting for its gain. peak, loud: one entry per row."""

    samples: NDArray[np.float32]
    peak: list[float]
    loud: list[bool]


class PeakNormalizer:
    """Brings the peak of every row to 0.95 with one steady gain, so that quiet recordings are heard.

    The gain of a row is set where its sound begins, from the loudest of the 30 s that follow, and is at
    most +30 dB; what comes before, and a row that never holds sound, is left as it is. Later it only
    falls, when a peak would otherwise leave [-1, 1]. Every change is a ramp over the half second before.
    Output is 30 s behind input, and the same however the input was cut into blocks.
    """

    def __init__(self, channel_count: int, max_gain_db: float = MAX_GAIN_DB) -> None:
        self._max_gain: float = 10.0 ** (max_gain_db / 20.0)
        self._rest = np.zeros((channel_count, 0), dtype=np.float32)
        self._waiting: deque[_Step] = deque()
        self._gain: list[float | None] = [None] * channel_count
        """Of the oldest waiting step, per row; None until its sound begins."""
        self._decided = False

    def push(self, block: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Takes any number of samples; returns what is ready, oldest first. Does not keep `block`."""
        samples = np.concatenate([self._rest, block], axis=1)
        whole = samples.shape[1] // _STEP_SAMPLES * _STEP_SAMPLES
        for start in range(0, whole, _STEP_SAMPLES):
            self._append(samples[:, start : start + _STEP_SAMPLES])
        self._rest = samples[:, whole:].copy()  # not a view: it would keep the block alive
        return list(self._ready(keep=_STEPS_AHEAD))

    def flush(self) -> list[NDArray[np.float32]]:
        """The end of the recording: everything still held back."""
        if self._rest.shape[1]:
            self._append(self._rest)
            self._rest = self._rest[:, :0]
        return list(self._ready(keep=0))

    def _append(self, view: NDArray[np.float32]) -> None:
        samples = view.copy()
        self._waiting.append(
            _Step(
                samples,
                [_peak(row) for row in samples],
                [_energy(row) >= _SOUND_RMS**2 * row.size for row in samples],
            )
        )

    def _ready(self, keep: int) -> Iterator[NDArray[np.float32]]:
        """Steps whose gain, and whose successor's, can be known: all but the last `keep`."""
        while len(self._waiting) > keep:
            if not self._decided:  # the very first step has no predecessor to ramp in
                self._gain = self._gains_at(0)
                self._decided = True
            after = self._gains_at(1) if len(self._waiting) > 1 else self._gain
            step = self._waiting.popleft()
            yield _scaled(step.samples, self._gain, after)
            self._gain = after

    def _gains_at(self, index: int) -> list[float | None]:
        """Gain of the waiting step at `index`, given that of the one before it in `_gain`."""
        step = self._waiting[index]
        return [self._row_gain(row, index, step) for row in range(len(self._gain))]

    def _row_gain(self, row: int, index: int, step: _Step) -> float | None:
        gain = self._gain[row]
        if gain is None:
            if not step.loud[row]:
                return None
            ahead = list(self._waiting)[index : index + _STEPS_AHEAD]
            loudest = max(waiting.peak[row] for waiting in ahead)
            return min(self._max_gain, TARGET_PEAK / loudest)
        peak = step.peak[row]
        return TARGET_PEAK / peak if gain * peak > 1.0 else gain


def _scaled(
    samples: NDArray[np.float32], before: list[float | None], after: list[float | None]
) -> NDArray[np.float32]:
    out = np.empty_like(samples)
    for row, source in enumerate(samples):
        start, end = before[row] or 1.0, after[row] or 1.0
        if start == end:
            np.multiply(source, np.float32(start), out=out[row])
        else:
            np.multiply(source, np.linspace(start, end, source.size, dtype=np.float32), out=out[row])
    return np.clip(out, -1.0, 1.0, out=out)


def _peak(row: NDArray[np.float32]) -> float:
    return max(float(row.max()), -float(row.min()))


def _energy(row: NDArray[np.float32]) -> float:
    return float(np.dot(row, row))
