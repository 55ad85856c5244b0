"""A cache in a Redis server, which several servers can share. Keys hold digests only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from voiceforge.infra.cache.base import CacheKey, CacheRefused, CacheSize, CacheUnreachable

_CLEAR_S = 10.0
_SCAN_KEYS = 1000


class RedisCache:
    """Belongs to one event loop. Connects when it is first asked.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`, with user, password and database where needed.
        prefix: before every key; servers with the same one share their entries.
        timeout_s: for one look-up, connecting included. Nothing is tried twice: whoever asks can do without.
    """

    def __init__(self, url: str, *, prefix: str, timeout_s: float, max_connections: int = 32) -> None:
        self._prefix = prefix
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
        self._redis = Redis(connection_pool=self._pool)

    async def get(self, key: CacheKey) -> bytes | None:
        async with self._asking(self._timeout_s):
            value = await self._redis.get(self._name(key))
        return value if isinstance(value, bytes) else None

    async def put(self, key: CacheKey, value: bytes, ttl_s: float) -> None:
        async with self._asking(self._timeout_s):
            await self._redis.set(self._name(key), value, px=max(1, int(ttl_s * 1000)))

    async def clear(self, partition: str) -> int:
        removed = 0
        async with self._asking(_CLEAR_S):
            batch: list[bytes] = []
            async for name in self._redis.scan_iter(f"{self._prefix}:{partition}:*", count=_SCAN_KEYS):
                batch.append(name)
                if len(batch) == _SCAN_KEYS:
                    removed += await self._redis.unlink(*batch)
                    batch = []
            if batch:
                removed += await self._redis.unlink(*batch)
        return removed

    def size(self) -> CacheSize | None:
        return None

    async def close(self) -> None:
        await self._redis.aclose()
        await self._pool.disconnect()

    def _name(self, key: CacheKey) -> str:
        return f"{self._prefix}:{key.partition}:{key.name}"

    @asynccontextmanager
    async def _asking(self, timeout_s: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except (TimeoutError, RedisTimeoutError, RedisConnectionError, OSError) as error:
            raise CacheUnreachable(type(error).__name__) from error
        except RedisError as error:
            raise CacheRefused(type(error).__name__) from error
