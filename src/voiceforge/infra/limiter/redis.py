"""Windows in a Redis server, which several processes and machines share; the scripts are those of `limits`.

Times are those of who asks: machines that share windows must agree on the time.
"""

from __future__ import annotations

import asyncio
import time

from limits.aio.storage import RedisStorage
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from voiceforge.infra.limiter.base import LimiterUnreachable, Spent, Window


class RedisLimiter:
    """Connects when it is first asked.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`, with user, password and database where needed.
        prefix: before every key; servers with the same one share their windows.
        timeout_s: for one window, connecting included. Nothing is tried twice.
    """

    def __init__(self, url: str, *, prefix: str, timeout_s: float, max_connections: int = 32) -> None:
        self._timeout_s = timeout_s
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        self._windows = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=prefix,
            connection_pool=self._pool,  # type: ignore[arg-type]  # its hints forgot it
        )

    async def spend(self, window: Window) -> Spent:
        try:
            async with asyncio.timeout(self._timeout_s):
                passed = await self._windows.acquire_entry(window.key, window.most, window.seconds)
                oldest, used = await self._windows.get_moving_window(window.key, window.most, window.seconds)
        except (TimeoutError, OSError, RedisError) as error:
            raise LimiterUnreachable(type(error).__name__) from error
        if not used:
            return Spent(passed, window.most, float(window.seconds))
        return Spent(passed, max(0, window.most - used), max(0.0, oldest + window.seconds - time.time()))

    async def forget(self, key: str) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._windows.clear(key)
        except (TimeoutError, OSError, RedisError) as error:
            raise LimiterUnreachable(type(error).__name__) from error

    async def close(self) -> None:
        await self._pool.disconnect()
