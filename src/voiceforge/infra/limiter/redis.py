"""Windows and places in a Redis server, which several processes and machines share.

The scripts of windows are those of `limits`; it has none for places. Times of windows are those of who asks:
machines that share them must agree on the time. A place whose holder is not heard of for a while is free.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from limits.aio.storage import RedisStorage
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from voiceforge.infra.limiter.base import LimiterUnreachable, Place, Spent, Window
from voiceforge.infra.limiter.silence import Silence

_FIRST = 4
"""So many times as long may the first answer take: until then connections are made."""
# By the clock of Redis, in milliseconds. ARGV: how long a place is kept, most, holder.
_ENTER = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
    return 0
end
redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
"""
_KEEP = """
local now = redis.call('TIME')
redis.call('ZADD', KEYS[1], now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
"""


class RedisLimiter:
    """Connects when it is first asked.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`, with user, password and database where needed.
        prefix: before every key; servers with the same one share their windows.
        timeout_s: a server that says nothing to anybody here for so long is out of reach. Nothing is tried
            twice.
        kept_s: so long a place is taken for in use, unless `keep` tells that it is.
    """

    def __init__(
        self, url: str, *, prefix: str, timeout_s: float, kept_s: float = 60.0, max_connections: int = 16
    ) -> None:
        self._silence = Silence(timeout_s, _FIRST * timeout_s)
        self._prefix = prefix
        self._kept_ms = int(kept_s * 1000)
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            # How long to wait is known here, and not to each connection.
            timeout=None,
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )
        self._windows = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=prefix,
            connection_pool=self._pool,  # type: ignore[arg-type]  # its hints forgot it
        )
        self._redis = Redis(connection_pool=self._pool)
        self._enter = self._redis.register_script(_ENTER)
        self._keep = self._redis.register_script(_KEEP)

    async def spend(self, window: Window) -> Spent:
        async with self._asking():
            passed = await self._windows.acquire_entry(window.key, window.most, window.seconds)
            oldest, used = await self._windows.get_moving_window(window.key, window.most, window.seconds)
        if not used:
            return Spent(passed, window.most, float(window.seconds))
        return Spent(passed, max(0, window.most - used), max(0.0, oldest + window.seconds - time.time()))

    async def forget(self, key: str) -> None:
        async with self._asking():
            await self._windows.clear(key)

    async def enter(self, place: Place) -> bool:
        async with self._asking():
            return bool(await self._enter([self._name(place)], [self._kept_ms, place.most, place.holder]))

    async def keep(self, place: Place) -> None:
        """It is still in use.

        Raises:
            LimiterUnreachable
        """
        async with self._asking():
            await self._keep([self._name(place)], [self._kept_ms, place.holder])

    async def leave(self, place: Place) -> None:
        async with self._asking():
            await self._redis.zrem(self._name(place), place.holder)

    def _name(self, place: Place) -> str:
        return f"{self._prefix}:in:{place.key}"

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        try:
            async with self._silence.listening():
                yield
        except (TimeoutError, OSError, RedisError) as error:
            raise LimiterUnreachable(type(error).__name__) from error

    async def close(self) -> None:
        await self._pool.disconnect()
