"""A shared limiter that may fail, made one that never does: then each process counts for itself."""

from __future__ import annotations

import asyncio
from typing import Protocol

from voiceforge.infra.cache.breaker import Breaker, BreakerRule
from voiceforge.infra.limiter.base import Limiter, LimiterUnreachable, Place, Spent, Window
from voiceforge.infra.limiter.memory import MemoryLimiter
from voiceforge.telemetry.logger import Logger

_KEEP_EVERY_S = 20.0

_log = Logger(__name__)


class SharedLimiter(Limiter, Protocol):
    async def keep(self, place: Place) -> None: ...


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
        shared: SharedLimiter,
        observer: LimiterObserver,
        rule: BreakerRule | None = None,
        own: MemoryLimiter | None = None,
    ) -> None:
        self._shared = shared
        self._own = own or MemoryLimiter()
        self._observer = observer
        self._places: dict[str, Place] = {}
        self._keeping: asyncio.Task[None] | None = None
        self._breaker = Breaker(rule or BreakerRule(), self._on_change)
        observer.limiter_shared(True)

    async def spend(self, window: Window) -> Spent:
        if not self._breaker.passes():
            return self._own.spend_now(window)
        try:
            spent = await self._shared.spend(window)
        except LimiterUnreachable:
            self._failed()
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
            self._failed()
        else:
            self._breaker.succeeded()

    async def enter(self, place: Place) -> bool:
        if self._breaker.passes():
            try:
                entered = await self._shared.enter(place)
            except LimiterUnreachable:
                self._failed()
            else:
                self._breaker.succeeded()
                if entered:
                    # Beyond what may be in here, where the others had left before they were told so.
                    self._own.enter_now(place)
                    self._places[place.holder] = place
                    if self._keeping is None:
                        self._keeping = asyncio.create_task(self._keep())
                return entered
        return self._own.enter_now(place)

    async def leave(self, place: Place) -> None:
        """What Redis is not told now it finds out by itself."""
        self._own.leave_now(place)
        if self._places.pop(place.holder, None) is not None and not self._breaker.open:
            try:
                await self._shared.leave(place)
            except LimiterUnreachable:
                self._failed()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_KEEP_EVERY_S)
            for place in list(self._places.values()):
                if self._breaker.open:
                    break
                try:
                    await self._shared.keep(place)
                except LimiterUnreachable:
                    self._failed()

    def _failed(self) -> None:
        self._observer.limiter_fault()
        self._breaker.failed()

    async def close(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        await self._shared.close()

    def _on_change(self, opened: bool) -> None:
        self._observer.limiter_shared(not opened)
        if opened:
            _log.warning("limits out of reach; each process counts for itself")
        else:
            _log.info("limits in reach again; all processes count together")
