"""Whether a batch with room left is worth holding back for the next window. Pure; knows no clock."""

from __future__ import annotations

_SMOOTHING = 0.2  # weight of the newest gap in the running mean
_LATELY_S = 1.0  # what came before a longer pause is forgotten
_GAPS = 2.0
"""When the next window is later than twice the mean gap, it is no longer on its way."""


class BatchWait:
    """Watches how closely windows of different requests arrive; those of one come together anyway.

    Args:
        most_s: the longest a window is held back.
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._last: float | None = None
        self._last_request: object = None
        self._gap_s = float("inf")

    def arrived(self, request: object, now: float) -> None:
        """A window of this request came."""
        gap_s = float("inf") if self._last is None else now - self._last
        self._last = now
        if request is self._last_request:
            return
        self._last_request = request
        if gap_s > _LATELY_S:
            self._gap_s = float("inf")
        elif self._gap_s == float("inf"):
            self._gap_s = gap_s
        else:
            # A pause between two bursts says little about the gaps within them.
            self._gap_s += _SMOOTHING * (min(gap_s, 2 * self._most_s) - self._gap_s)

    def until(self, oldest_queued_at: float, now: float) -> float | None:
        """Until when to hold a batch back, by when its oldest window came; None: not at all."""
        if self._last is None or self._gap_s >= self._most_s:
            return None
        until = min(oldest_queued_at + self._most_s, self._last + _GAPS * self._gap_s)
        return until if until > now else None
