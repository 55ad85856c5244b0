"""So many may work at once; the others wait in line for a place.

Two lines: those who have begun come first, since what they hold is free again once they are done. But one in
`BEGUN_IN_A_ROW` places goes to somebody new, however many come back for more.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from voiceforge.errors import Cancelled

BEGUN_IN_A_ROW = 16


class Turn:
    """Of one who works now and then, in one thread at a time. Made here, used by `Places` alone."""

    def __init__(self) -> None:
        self.called = threading.Event()
        self.has_place = False
        self.ended = False


class Places:
    """Thread-safe."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._lock = threading.Lock()
        self._begun: deque[Turn] = deque()
        self._new: deque[Turn] = deque()
        self._in_a_row = 0

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._begun) + len(self._new)

    @contextmanager
    def one(self, turn: Turn, *, begun: bool) -> Iterator[None]:
        """Wait for a place, and keep it while the block runs.

        Raises:
            Cancelled: the turn has been ended.
        """
        with self._lock:
            if turn.ended:
                raise Cancelled("the transcription was cancelled")
            turn.called.clear()
            turn.has_place = self._free > 0  # while any is free, nobody waits
            if turn.has_place:
                self._free -= 1
            else:
                line = self._begun if begun else self._new
                line.append(turn)
        if not turn.has_place:
            turn.called.wait()
        with self._lock:
            if not turn.has_place:
                line.remove(turn)
                raise Cancelled("the transcription was cancelled")
        try:
            yield
        finally:
            with self._lock:
                self._pass_on(turn)

    def end(self, turn: Turn) -> None:
        """It waits no more, now and later. From any thread."""
        with self._lock:
            turn.ended = True
            turn.called.set()

    def _pass_on(self, turn: Turn) -> None:
        turn.has_place = False
        follower = self._next()
        if follower is None:
            self._free += 1
        else:
            follower.has_place = True
            follower.called.set()

    def _next(self) -> Turn | None:
        if self._begun and not (self._new and self._in_a_row >= BEGUN_IN_A_ROW):
            self._in_a_row += 1
            return self._begun.popleft()
        self._in_a_row = 0
        return self._new.popleft() if self._new else None
