"""When a job will be over, by the pace it had of late."""

from __future__ import annotations

from collections import deque

_WARM_UP_S = 3.0
"""Models load and queues fill at first: what is measured before says little."""
_MEMORY_S = 300.0


class Pace:
    """Told of the work of one attempt as it is done. Knows no clock; times are of any one of the caller's."""

    def __init__(self) -> None:
        self._told: deque[tuple[float, float]] = deque()
        self._began: float | None = None

    def left_s(self, now: float, done: float, left: float | None) -> float | None:
        """Seconds until the end.

        Args:
            done: how much work was done by now. left: how much is to be done; None: not known.

        Returns: None while it cannot be told.
        """
        if self._began is None:
            self._began = now
        self._told.append((now, done))
        # Of late: the later half of the time so far. What the machine did long ago says nothing of now.
        since = max(now - (now - self._began) / 2, now - _MEMORY_S)
        while len(self._told) > 2 and self._told[1][0] <= since:
            self._told.popleft()
        then, done_then = self._told[0]
        if left is None or now - self._began < _WARM_UP_S or done <= done_then:
            return None
        return left * (now - then) / (done - done_then)
