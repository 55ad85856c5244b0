"""How many rows a batch may have after the memory of the device was too small for more. Pure."""

from __future__ import annotations

_TRY_MORE_AFTER_S = 60.0
"""A batch that does not fit costs one failed decode, so what else fills the memory is asked about rarely."""


class RowLimit:
    """Halves with every batch that did not fit, doubles after each minute without one.

    Args:
        most: rows the engine takes when memory is no concern.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = most
        self._changed_at = 0.0

    def rows(self, now: float) -> int:
        """Rows a batch may have at `now`, in seconds of any steady clock; at least 1."""
        if self._limit < self._most and now - self._changed_at >= _TRY_MORE_AFTER_S:
            self._limit = min(self._most, 2 * self._limit)
            self._changed_at = now
        return self._limit

    def did_not_fit(self, rows: int, now: float) -> None:
        """A batch of `rows` ran out of memory."""
        self._limit = max(1, min(self._limit, rows // 2))
        self._changed_at = now
