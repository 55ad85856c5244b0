"""A cache that may fail, made one that costs its users nothing when it does."""

from __future__ import annotations

from typing import Literal, Protocol

from voiceforge.infra.cache.base import Cache, CacheKey, CacheRefused, CacheSize, CacheUnreachable
from voiceforge.infra.cache.breaker import Breaker, BreakerRule
from voiceforge.telemetry.logger import Logger

Fault = Literal["unreachable", "refused"]

_log = Logger(__name__)


class CacheObserver(Protocol):
    """What a guarded cache reports to whoever keeps the metrics."""

    def cache_fault(self, fault: Fault) -> None: ...

    def cache_available(self, *, reading: bool, writing: bool) -> None: ...


class GuardedCache:
    """What cannot be read is not there, what cannot be written is not kept. Who is out of reach is not asked
    for a while; who takes nothing (being full, say) is still read. Each begins and ends with one log line.

    Only `clear` raises: whoever asks for it must know whether it was done.
    """

    def __init__(self, inner: Cache, observer: CacheObserver, rule: BreakerRule | None = None) -> None:
        self._inner = inner
        self._observer = observer
        self._reach = Breaker(rule or BreakerRule(), self._on_reach)
        self._writes = Breaker(rule or BreakerRule(), self._on_writes)
        self._report()

    async def get(self, key: CacheKey) -> bytes | None:
        if not self._reach.passes():
            return None
        try:
            value = await self._inner.get(key)
        except CacheUnreachable:
            self._unreachable()
            return None
        except CacheRefused:
            self._reach.succeeded()
            self._observer.cache_fault("refused")
            return None
        self._reach.succeeded()
        return value

    async def put(self, key: CacheKey, value: bytes, ttl_s: float) -> None:
        if self._reach.open or not self._writes.passes():
            return
        try:
            await self._inner.put(key, value, ttl_s)
        except CacheUnreachable:
            self._unreachable()
        except CacheRefused:
            self._reach.succeeded()
            self._observer.cache_fault("refused")
            self._writes.failed()
        else:
            self._reach.succeeded()
            self._writes.succeeded()

    async def clear(self, partition: str) -> int:
        """
        Raises:
            CacheUnreachable, CacheRefused: not everything is gone.
        """
        return await self._inner.clear(partition)

    def size(self) -> CacheSize | None:
        return self._inner.size()

    async def close(self) -> None:
        await self._inner.close()

    def _unreachable(self) -> None:
        self._observer.cache_fault("unreachable")
        self._reach.failed()

    def _on_reach(self, opened: bool) -> None:
        self._report()
        if opened:
            _log.warning("cache out of reach; going on without it")
        else:
            _log.info("cache in reach again")

    def _on_writes(self, opened: bool) -> None:
        self._report()
        if opened:
            _log.warning("cache takes nothing more; it is still read")
        else:
            _log.info("cache takes results again")

    def _report(self) -> None:
        self._observer.cache_available(
            reading=not self._reach.open, writing=not (self._reach.open or self._writes.open)
        )
