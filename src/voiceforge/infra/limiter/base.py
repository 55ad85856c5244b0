"""What a limiter promises: of any `seconds` no more than `most` pass; no more than `most` are in at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Window:
    """At most `most` of `key` in any `seconds`. `most` may change while the window runs."""

    key: str
    most: int
    seconds: int = 60


@dataclass(frozen=True, slots=True)
class Spent:
    """What came of one. reset_s: until one more is free; 0 where none is in use."""

    passed: bool
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Place:
    """One of at most `most` places of `key`. holder: who is in it, like no other."""

    key: str
    most: int
    holder: str


class LimiterUnreachable(Exception):
    """Nothing was learnt; whether it was counted is not known."""


class Limiter(Protocol):
    """Belongs to one event loop."""

    async def spend(self, window: Window) -> Spent:
        """Take one, if there is one; what does not pass is not counted.

        Raises:
            LimiterUnreachable
        """
        ...

    async def forget(self, key: str) -> None:
        """As if nothing had been taken of it.

        Raises:
            LimiterUnreachable
        """
        ...

    async def enter(self, place: Place) -> bool:
        """Take a place until `leave`; False: there is none.

        Raises:
            LimiterUnreachable
        """
        ...

    async def leave(self, place: Place) -> None:
        """Harmless where it was not taken.

        Raises:
            LimiterUnreachable
        """
        ...

    async def close(self) -> None: ...
