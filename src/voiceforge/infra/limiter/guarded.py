"""A shared limiter that may fail, made one that never does: then each process counts for itself."""

from __future__ import annotations

from typing import Protocol

from voiceforge.infra.cache.breaker import Breaker, BreakerRule
from voiceforge.infra.limiter.base import Limiter, LimiterUnreachable, Spent, Window
from voiceforge.infra.limiter.memory import MemoryLimiter
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)


class LimiterObserver(Protocol):
    """What a guarded limiter reports to whoever keeps the metrics."""

    def limiter_fault(self) -> None: ...

    def limiter_shared(self, shared: bool) -> None: ...


class GuardedLimiter:
    """While `shared` is out of reach it is asked only now and then; meanwhile a limit holds in each process.
    What passes is counted here too, so that it begins with what is known. Each outage begins and ends with
    one log line.
    """

    def __init__(
        self,
        shared: Limiter,
        observer: LimiterObserver,
        rule: BreakerRule | None = None,
        own: MemoryLimiter | None = None,
    ) -> None:
        self._shared = shared
        self._own = own or MemoryLimiter()
        self._observer = observer
        self._breaker = Breaker(rule or BreakerRule(), self._on_change)
        observer.limiter_shared(True)

    async def spend(self, window: Window) -> Spent:
        if not self._breaker.passes():
            return self._own.spend_now(window)
        try:
            spent = await self._shared.spend(window)
        except LimiterUnreachable:
            self._observer.limiter_fault()
            self._breaker.failed()
            return self._own.spend_now(window)
        self._breaker.succeeded()
        if spent.passed:
            self._own.spend_now(window)
        return spent

    async def forget(self, key: str) -> None:
        self._own.forget_now(key)
        if not self._breaker.passes():
            return
        try:
            await self._shared.forget(key)
        except LimiterUnreachable:
            self._observer.limiter_fault()
            self._breaker.failed()
        else:
            self._breaker.succeeded()

    async def close(self) -> None:
        await self._shared.close()

    def _on_change(self, opened: bool) -> None:
        self._observer.limiter_shared(not opened)
        if opened:
            _log.warning("limits out of reach; each process counts for itself")
        else:
            _log.info("limits in reach again; all processes count together")
