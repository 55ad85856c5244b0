"""A cache in this process: the least recently used entries go when there are too many bytes."""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from voiceforge.infra.cache.base import CacheKey, CacheSize
from voiceforge.infra.cache.clearings import Clearings, LocalClearings

_ENTRY_BYTES = 512  # measured: the dictionary's slot, the key's two strings and the entry itself


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    kept_at_ns: int
    until_ns: int


class MemoryCache:
    """Thread-safe.

    Args:
        max_bytes: of everything kept; what is larger by itself is not kept.
        clearings: what was cleared in the other processes that serve the same callers.
        clock_ns: monotonic, the same in all those processes.
    """

    def __init__(
        self,
        max_bytes: int,
        *,
        clearings: Clearings | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._max_bytes = max_bytes
        self._clearings = clearings if clearings is not None else LocalClearings()
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._entries: OrderedDict[CacheKey, _Entry] = OrderedDict()
        self._bytes = 0
        self._last_clearing = self._clearings.last_ns()

    async def get(self, key: CacheKey) -> bytes | None:
        return self.get_now(key)

    def get_now(self, key: CacheKey) -> bytes | None:
        """As `get`, for those who cannot wait."""
        with self._lock:
            self._follow_clearings()
            entry = self._entries.get(key)
            if entry is None:
                return None
            if self._clock_ns() >= entry.until_ns:
                self._remove(key)
                return None
            self._entries.move_to_end(key)
            return entry.value

    async def put(self, key: CacheKey, value: bytes, ttl_s: float) -> None:
        with self._lock:
            self._follow_clearings()
            self._remove(key)
            if _weight(value) > self._max_bytes:
                return
            now_ns = self._clock_ns()
            self._entries[key] = _Entry(value, now_ns, now_ns + int(ttl_s * 1e9))
            self._bytes += _weight(value)
            while self._bytes > self._max_bytes:
                self._remove(next(iter(self._entries)))

    async def clear(self, partition: str) -> int:
        with self._lock:
            gone = [key for key in self._entries if key.partition == partition]
            for key in gone:
                self._remove(key)
            self._clearings.clear(partition, self._clock_ns())
        return len(gone)

    def size(self) -> CacheSize:
        with self._lock:
            self._follow_clearings()
            return CacheSize(len(self._entries), self._bytes)

    async def close(self) -> None:
        return None

    def _follow_clearings(self) -> None:
        last_ns = self._clearings.last_ns()
        if last_ns == self._last_clearing:
            return
        self._last_clearing = last_ns
        for key, entry in list(self._entries.items()):
            if entry.kept_at_ns <= self._clearings.cleared_ns(key.partition):
                self._remove(key)

    def _remove(self, key: CacheKey) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= _weight(entry.value)


def _weight(value: bytes) -> int:
    return sys.getsizeof(value) + _ENTRY_BYTES
