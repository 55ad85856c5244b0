"""Speech regions → windows: the stretches of audio that are decoded as one.

Context helps the engine, so neighbouring regions are packed together, pauses and all, up to the
length the engine likes best; a pause of two seconds and more ends a window, since decoding it
would only cost time and tempt the model to invent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.vad.regions import Region


@dataclass(frozen=True, slots=True)
class Window:
    """Audio from sample `start` up to `end`, holding `regions` with a little air around them."""

    start: int
    end: int
    regions: tuple[Region, ...]

    @property
    def speech_samples(self) -> int:
        return sum(region.samples for region in self.regions)


@dataclass(frozen=True, slots=True)
class PackingRule:
    """target_samples: windows are filled up to this length. padding_samples: air kept on either
    side. max_pause_samples: a longer pause always ends a window."""

    target_samples: int
    padding_samples: int
    max_pause_samples: int = 2 * SAMPLE_RATE_HZ


class WindowPlanner:
    """Packs the regions of one stream, in order; windows never overlap."""

    def __init__(self, rule: PackingRule) -> None:
        self._rule = rule
        self._pending: list[Region] = []
        self._last_end = 0

    @property
    def needed_from(self) -> int | None:
        """First sample that a window still to come may hold; None: nothing is pending."""
        return self._start_of(self._pending) if self._pending else None

    def push(self, regions: Iterable[Region], speech_from: int) -> list[Window]:
        """Take regions that ended. `speech_from`: where the region that is still open began, else how
        many samples have been judged: no later region begins before it.

        Returns the windows that no later region can join.
        """
        windows: list[Window] = []
        for region in regions:
            if self._pending and not self._fits(region):
                windows.append(self._close(region.start))
            self._pending.append(region)
        if self._pending and speech_from - self._pending[-1].end > self._rule.max_pause_samples:
            windows.append(self._close(speech_from))
        return windows

    def flush(self, total_samples: int) -> list[Window]:
        """The stream ended after `total_samples`: the last window, which need not share its air."""
        return [self._close(None, limit=total_samples)] if self._pending else []

    def _fits(self, region: Region) -> bool:
        pause = region.start - self._pending[-1].end
        length = region.end + self._rule.padding_samples - self._start_of(self._pending)
        return pause <= self._rule.max_pause_samples and length <= self._rule.target_samples

    def _start_of(self, regions: list[Region]) -> int:
        return max(regions[0].start - self._rule.padding_samples, self._last_end, 0)

    def _close(self, next_start: int | None, limit: int | None = None) -> Window:
        """`next_start`: where speech goes on, at the earliest. `limit`: where the recording ends."""
        regions, self._pending = self._pending, []
        last = regions[-1]
        air = self._rule.padding_samples
        if next_start is not None:
            # Two windows share the pause between them; the part of it that is no window's ends it
            # whichever of the two is known first.
            pause = min(next_start - last.end, self._rule.max_pause_samples)
            air = min(air, pause // 2)
        end = last.end + air
        window = Window(self._start_of(regions), end if limit is None else min(end, limit), tuple(regions))
        self._last_end = window.end
        return window
