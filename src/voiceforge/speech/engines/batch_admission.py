"""Whether another request may come in, and when to come back if not. Pure; knows no clock.

The answer to "when" is told to each of those refused as if they stood in line: the second is told when
the second place is expected to be free. Whoever comes back then finds one, as far as can be known.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from statistics import median

from voiceforge.speech.engines.tickets import BatcherLimits

_REMEMBERED = 32
_SOONEST_S = 1.0
"""Nobody is told less, and no more come back within it than there are places: Retry-After counts seconds."""
_LONGEST_LINE = 8
"""Times the number of places; whoever is told to come back and does not, stands in line all the same."""


class Admission:
    """Not thread-safe. Every time is of one steady clock, in seconds."""

    def __init__(self, limits: BatcherLimits) -> None:
        self._limits = limits
        self._served: deque[tuple[float, float]] = deque(maxlen=_REMEMBERED)
        self._promised: list[float] = []

    def ended(self, held_s: float, audio_s: float) -> None:
        """A request gave its place back after `held_s`, with `audio_s` seconds of audio decoded."""
        if audio_s > 0:
            self._served.append((held_s, audio_s))

    def retry_after_s(
        self, now: float, *, opened_at: Iterable[float], queued_s: float, audio_s_per_s: float | None
    ) -> float | None:
        """None: come in. Otherwise in how many seconds there is likely to be a place.

        Args:
            opened_at: when each of the requests inside came.
            queued_s: audio that waits and goes before theirs.
            audio_s_per_s: how fast all workers together decode; None: not known yet.
        """
        ages_s = [now - at for at in opened_at]
        full = len(ages_s) >= self._limits.max_tickets
        excess_s = queued_s - self._limits.max_queued_s
        if not full and excess_s <= 0:
            return None
        while self._promised and self._promised[0] <= now:
            heapq.heappop(self._promised)
        before = min(len(self._promised), _LONGEST_LINE * self._limits.max_tickets)
        wait_s = _SOONEST_S
        if audio_s_per_s:
            wait_s = max(wait_s, excess_s / audio_s_per_s)
        if full or (ages_s and self._served):  # those inside bring more until they end
            hold_s = self._hold_s(len(ages_s), queued_s, audio_s_per_s)
            wait_s = max(wait_s, _place_free_s(ages_s, hold_s, before))
        heapq.heappush(self._promised, now + wait_s)
        return wait_s

    def _hold_s(self, inside: int, queued_s: float, audio_s_per_s: float | None) -> float:
        """How long a request is likely to keep its place while `inside` of them are there."""
        if not self._served:
            return queued_s / audio_s_per_s if audio_s_per_s else _SOONEST_S
        held_s = median(held for held, _ in self._served)
        if not audio_s_per_s:
            return held_s
        # What was measured with few inside says little about many.
        return max(held_s, inside * median(audio for _, audio in self._served) / audio_s_per_s)


def _place_free_s(ages_s: Iterable[float], hold_s: float, before: int) -> float:
    """When the place is free that comes after `before` others, each taken again by one of those in line.

    Args:
        hold_s: how long a place is usually kept. Who has had it longer is half-way through, at most.
    """
    free_s = [max(hold_s - age, age / 2, _SOONEST_S) for age in ages_s]
    heapq.heapify(free_s)
    for _ in range(before):
        heapq.heapreplace(free_s, free_s[0] + max(hold_s, _SOONEST_S))
    return free_s[0]
