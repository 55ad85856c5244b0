"""Who has had least: start-time fair queueing over any kind of keys. Pure; knows no clock.

Each key has an account of what it was charged. The lowest is served next. One that comes anew starts
where the one served last stood: it is owed nothing for the time before, and owes nothing for it.

After Goyal, Vin and Cheng, "Start-time Fair Queueing" (1996).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

_SPARE_ACCOUNTS = 64


class FairShares(Generic[Key]):
    """Accounts of keys that compete. Not thread-safe."""

    def __init__(self) -> None:
        self._charged: dict[Key, float] = {}
        self._competing: set[Key] = set()
        self._start = 0.0

    def enter(self, key: Key) -> None:
        """It has something to be served; idempotent while that lasts."""
        if key in self._competing:
            return
        self._competing.add(key)
        self._charged[key] = max(self._charged.get(key, 0.0), self._start)

    def leave(self, key: Key) -> None:
        """It has nothing now. What it had above the others is remembered for as long as it matters."""
        self._competing.discard(key)
        if len(self._charged) > 2 * len(self._competing) + _SPARE_ACCOUNTS:
            self._forget_settled()

    def forget(self, key: Key) -> None:
        """It will not come back."""
        self._competing.discard(key)
        self._charged.pop(key, None)

    def lowest(self, keys: Iterable[Key]) -> Key:
        """The one among `keys`, which all compete, that is to be served next; of equals the first."""
        return min(keys, key=self._charged.__getitem__)

    def serve(self, key: Key) -> None:
        """It is its turn: newcomers start here."""
        self._start = max(self._start, self._charged[key])

    def charge(self, key: Key, amount: float) -> None:
        self._charged[key] += amount

    def _forget_settled(self) -> None:
        self._charged = {
            key: charged
            for key, charged in self._charged.items()
            if key in self._competing or charged > self._start
        }
