"""Stops asking what does not answer: after a few failures in a row, and tries again now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """failures: in a row, until it opens. first_pause_s: until it tries again; doubles with every try that
    fails, up to longest_pause_s."""

    failures: int = 3
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0


class Breaker:
    """Closed: everything passes. Open: nothing does. When the pause is over one try passes, and decides.

    Belongs to one event loop.

    Args:
        on_change: called with True when it opens and False when it closes again.
    """

    def __init__(
        self,
        rule: BreakerRule,
        on_change: Callable[[bool], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rule = rule
        self._on_change = on_change
        self._clock = clock
        self._failures = 0
        self._pause_s = rule.first_pause_s
        self._try_at: float | None = None  # None: closed
        self._trying = False

    @property
    def open(self) -> bool:
        return self._try_at is not None

    def passes(self) -> bool:
        """Whether to try now. Whoever tries must say afterwards how it went."""
        if self._try_at is None:
            return True
        now = self._clock()
        if now < self._try_at:
            return False
        self._try_at = now + self._pause_s  # the others wait for what this one finds
        self._trying = True
        return True

    def succeeded(self) -> None:
        self._failures = 0
        if self._try_at is not None:
            self._try_at = None
            self._pause_s = self._rule.first_pause_s
            self._on_change(False)

    def failed(self) -> None:
        self._failures += 1
        if self._try_at is not None:
            if not self._trying:  # one that was under way when it opened: that says nothing new
                return
            self._trying = False
            self._pause_s = min(2 * self._pause_s, self._rule.longest_pause_s)
            self._try_at = self._clock() + self._pause_s
        elif self._failures >= self._rule.failures:
            self._try_at = self._clock() + self._pause_s
            self._on_change(True)
