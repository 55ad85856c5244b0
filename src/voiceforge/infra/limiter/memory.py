"""Windows and places of this process. The `limits` library has such a store too; it starts a task and a
thread for every request, which costs more than all else that is done here."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from voiceforge.infra.limiter.base import Place, Spent, Window

_STALE_AT_ONCE = 2
"""More than can be added at once, so that memory holds what was used within a window, and little else."""


@dataclass(slots=True)
class _Used:
    seconds: int
    times: deque[float] = field(default_factory=deque)


class MemoryLimiter:
    """
    Args:
        clock: seconds, never backwards.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._used: OrderedDict[str, _Used] = OrderedDict()
        self._in: dict[str, set[str]] = {}

    def __len__(self) -> int:
        """How many windows are remembered."""
        return len(self._used)

    async def spend(self, window: Window) -> Spent:
        return self.spend_now(window)

    def spend_now(self, window: Window) -> Spent:
        """Likewise, for who is not waiting."""
        now = self._clock()
        used = self._used.get(window.key)
        if used is None:
            used = self._used[window.key] = _Used(window.seconds)
        else:
            used.seconds = window.seconds
            self._used.move_to_end(window.key)
        self._forget_stale(now)
        times, since = used.times, now - window.seconds
        while times and times[0] <= since:
            times.popleft()
        passed = len(times) < window.most
        if passed:
            times.append(now)
        remaining = max(0, window.most - len(times))
        if not times:
            return Spent(passed, remaining, float(window.seconds))  # nothing ever passes
        # Where the limit was lowered meanwhile, more than one has to go before the next may come.
        oldest = times[max(0, len(times) - window.most)] if window.most > 0 else times[-1]
        return Spent(passed, remaining, max(0.0, oldest + window.seconds - now))

    def _forget_stale(self, now: float) -> None:
        for _ in range(_STALE_AT_ONCE):
            key, used = next(iter(self._used.items()))
            if (used.times and used.times[-1] > now - used.seconds) or len(self._used) == 1:
                return
            del self._used[key]

    async def forget(self, key: str) -> None:
        self.forget_now(key)

    def forget_now(self, key: str) -> None:
        """Likewise, for who is not waiting."""
        self._used.pop(key, None)

    async def enter(self, place: Place) -> bool:
        return self.enter_now(place)

    def enter_now(self, place: Place) -> bool:
        """Likewise, for who is not waiting."""
        holders = self._in.setdefault(place.key, set())
        if len(holders) >= place.most:
            if not holders:
                del self._in[place.key]
            return False
        holders.add(place.holder)
        return True

    async def leave(self, place: Place) -> None:
        self.leave_now(place)

    def leave_now(self, place: Place) -> None:
        """Likewise."""
        holders = self._in.get(place.key)
        if holders is not None:
            holders.discard(place.holder)
            if not holders:
                del self._in[place.key]

    async def close(self) -> None:
        self._used.clear()
        self._in.clear()
