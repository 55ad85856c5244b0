"""Who tries credentials that are none: after some in a minute, an address is asked to wait.

Nobody is made to wait while a connection is held: they are told when to come back. Memory is bounded; each
process counts for itself.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from voiceforge.errors import Overloaded
from voiceforge.services.households import household

_WINDOW_S = 60.0
_MOST_ADDRESSES = 10_000


class FailedTries:
    """Args:
    most: failures of one address in a minute; 0: nobody is slowed.
    clock: seconds that never go back.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def check(self, address: str | None) -> None:
        """
        Raises:
            Overloaded: there were too many from there; tells when that is over.
        """
        if not self._most or not self._counts:
            return
        until, count = self._counts.get(household(address), (0.0, 0))
        left_s = until - self._clock()
        if count >= self._most and left_s > 0:
            raise Overloaded("too many wrong credentials came from your address", retry_after_s=left_s)

    def add(self, address: str | None) -> None:
        if not self._most:
            return
        name, now = household(address), self._clock()
        until, count = self._counts.pop(name, (0.0, 0))
        if until <= now:
            until, count = now + _WINDOW_S, 0
        self._counts[name] = (until, count + 1)
        while len(self._counts) > _MOST_ADDRESSES:
            self._counts.popitem(last=False)
