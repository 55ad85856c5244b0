"""Who has had least: fair queueing over any kind of keys. Pure; knows no clock.

Each key has an account of what it was charged, and the lowest is served next. One that comes anew starts
at what each would have had if all had been served equally: it is owed nothing for the time before, and
owes nothing for it. However many come anew, those who wait are reached.

The level at which they start is the virtual time of Bennett and Zhang, "Hierarchical Packet Fair Queueing
Algorithms" (1996).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

_SPARE_ACCOUNTS = 64


class FairShares(Generic[Key]):
    """Accounts of keys that compete. Not thread-safe."""

    def __init__(self) -> None:
        self._charged: dict[Key, float] = {}
        self._competing: set[Key] = set()
        self._level = 0.0
        self._in_service = 0.0

    def __len__(self) -> int:
        """Keys that compete."""
        return len(self._competing)

    def enter(self, key: Key) -> None:
        """It has something to be served; idempotent while that lasts."""
        if key in self._competing:
            return
        self._competing.add(key)
        self._charged[key] = max(self._charged.get(key, 0.0), self._level)

    def leave(self, key: Key) -> None:
        """It has nothing now, and nothing being served. What it had above the others is remembered for as
        long as it matters."""
        self._competing.discard(key)
        if len(self._charged) > 2 * len(self._competing) + _SPARE_ACCOUNTS:
            self._forget_settled()

    def forget(self, key: Key) -> None:
        """It will not come back."""
        self._competing.discard(key)
        self._charged.pop(key, None)

    def standing(self, key: Key) -> float:
        """What it was charged, as far as it matters; the one with the lowest is to be served next."""
        return self._charged[key]

    def charge(self, key: Key, amount: float) -> None:
        """It is being served, and still competes."""
        self._level = max(self._level + self._in_service, min(self._charged[k] for k in self._competing))
        # Who comes while this is being served was not there to share it.
        self._in_service = amount / len(self._competing)
        self._charged[key] += amount

    def _forget_settled(self) -> None:
        self._charged = {
            key: charged
            for key, charged in self._charged.items()
            if key in self._competing or charged > self._level
        }
