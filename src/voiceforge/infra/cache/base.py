"""The seam to a cache: bytes under keys, for a while. What they mean is not known here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol


class CacheKey(NamedTuple):
    """Digests, or other words of ASCII letters and digits. partition: what is removed together."""

    partition: str
    name: str


@dataclass(frozen=True, slots=True)
class CacheSize:
    """bytes: of keys and values, and what keeping them costs."""

    entries: int
    bytes: int


class CacheUnreachable(Exception):
    """It does not answer, or not in time."""


class CacheRefused(Exception):
    """It answers, and does not do what it is asked: full, read-only, or something else under that key."""


class Cache(Protocol):
    """Safe to use from many tasks of one event loop.

    Raises (every method):
        CacheUnreachable, CacheRefused.
    """

    async def get(self, key: CacheKey) -> bytes | None: ...

    async def put(self, key: CacheKey, value: bytes, ttl_s: float) -> None:
        """Keep `value` for at most `ttl_s`; it may be dropped at any time, or not be kept at all."""
        ...

    async def clear(self, partition: str) -> int:
        """Remove everything of a partition; returns how many entries that were."""
        ...

    def size(self) -> CacheSize | None:
        """None where only another process knows."""
        ...

    async def close(self) -> None: ...
