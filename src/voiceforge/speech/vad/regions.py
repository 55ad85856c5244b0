"""Probabilities → speech regions, one frame at a time, so that files and streams share one rule.

p  ▁▁▂▇██▇▃▂▆███▇▂▁▁▁▁▁▁▁▁▂▁
   ----[ region    ]--------     opens at `threshold`, closes 0.15 below it once the
              ^ pause shorter    pause has lasted `min_silence_ms`; the region ends
                than that        where the pause began
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.options import VadOptions
from voiceforge.speech.vad.silero import FRAME_SAMPLES

HYSTERESIS = 0.15
"""Silero's own: a region closes this far below the threshold that opened it."""
CUT_WIDTH_FRAMES = 5
"""160 ms: a point inside one closed consonant is not a pause."""


@dataclass(frozen=True, slots=True)
class Region:
    """Speech from sample `start` up to, not including, sample `end`.

    probability: mean speech probability of its frames.
    cut: it was split from its successor inside speech because it grew too long.
    """

    start: int
    end: int
    probability: float
    cut: bool = False

    @property
    def samples(self) -> int:
        return self.end - self.start


class RegionDetector:
    """Turns the frames of one stream into regions.

    Args:
        options: thresholds.
        max_region_samples: a longer region is split at the least speech-like moment of its later half.
    """

    def __init__(self, options: VadOptions, max_region_samples: int) -> None:
        self._opens = options.threshold
        self._closes = max(options.threshold - HYSTERESIS, 0.01)
        self._min_speech = options.min_speech_ms * SAMPLE_RATE_HZ // 1000
        self._min_silence = options.min_silence_ms * SAMPLE_RATE_HZ // 1000
        self._max_frames = max(2, max_region_samples // FRAME_SAMPLES)
        self._frame = 0
        self._start: int | None = None
        self._pause: int | None = None
        self._goes_on = False
        self._region: list[float] = []

    @property
    def position(self) -> int:
        """Samples judged so far."""
        return self._frame * FRAME_SAMPLES

    @property
    def open_since(self) -> int | None:
        """Where the region that is still open began."""
        return None if self._start is None else self._start * FRAME_SAMPLES

    def push(self, probabilities: Iterable[float]) -> list[Region]:
        """Judge the next frames; returns the regions that ended with them."""
        return [region for p in probabilities for region in self._judge(p)]

    def flush(self) -> list[Region]:
        """The stream is over: the region still open, if any."""
        return self._close(self._frame if self._pause is None else self._pause)

    def _judge(self, probability: float) -> list[Region]:
        ended: list[Region] = []
        if self._start is None:
            if probability >= self._opens:
                self._start, self._region, self._goes_on = self._frame, [], False
        elif probability >= self._opens:
            self._pause = None
        elif probability < self._closes and self._pause is None:
            self._pause = self._frame
        if self._start is not None:
            self._region.append(probability)
        self._frame += 1
        if self._pause is not None and (self._frame - self._pause) * FRAME_SAMPLES >= self._min_silence:
            ended = self._close(self._pause)
        elif len(self._region) >= self._max_frames:
            ended = self._split()
        return ended

    def _close(self, end_frame: int) -> list[Region]:
        start, self._start, self._pause = self._start, None, None
        frames, self._region = self._region, []
        if start is None or end_frame == start:
            return []
        # What goes on after a cut is speech however short it is; alone it would be a click.
        if not self._goes_on and (end_frame - start) * FRAME_SAMPLES < self._min_speech:
            return []
        return [_region(start, end_frame, frames, cut=False)]

    def _split(self) -> list[Region]:
        """End the open region at its weakest point and let the rest go on as a new one; a pause that
        has begun ends it, however short it is."""
        assert self._start is not None
        if self._pause is not None:
            return self._close(self._pause)
        half = len(self._region) // 2
        width = CUT_WIDTH_FRAMES
        best = min(
            range(half, len(self._region) - width + 1),
            key=lambda i: sum(self._region[i : i + width]),
            default=len(self._region) - 1,
        )
        cut = self._start + min(best + width // 2, len(self._region) - 1)
        region = _region(self._start, cut, self._region, cut=True)
        self._region = self._region[cut - self._start :]
        self._start, self._goes_on = cut, True
        return [region]


def _region(start: int, end: int, frames: list[float], *, cut: bool) -> Region:
    """`start`, `end` in frames; `frames`: probabilities from `start` on, perhaps beyond `end`."""
    inside = frames[: end - start]
    return Region(start * FRAME_SAMPLES, end * FRAME_SAMPLES, sum(inside) / len(inside), cut)
