"""What every cache must do, wherever it keeps things."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from voiceforge.infra.cache.base import Cache, CacheKey
from voiceforge.infra.cache.guarded import Fault, GuardedCache
from voiceforge.infra.cache.memory import MemoryCache
from voiceforge.testing.redis_server import RedisServer, find_redis, redis_server

HERE = CacheKey("me", "1")
NUMBERS = itertools.count()


class Silent:
    """Nobody keeps metrics."""

    def cache_fault(self, fault: Fault) -> None: ...

    def cache_available(self, *, reading: bool, writing: bool) -> None: ...


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if find_redis() is None:
        pytest.skip("there is no Redis server here")
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(params=["memory", "redis", "guarded redis"])
async def cache(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cache]:
    made: Cache = MemoryCache(1 << 20)
    if "redis" in request.param:
        from voiceforge.infra.cache.redis import RedisCache

        server = request.getfixturevalue("redis")
        made = RedisCache(server.url, prefix=f"test-{next(NUMBERS)}", timeout_s=5)
        if request.param.startswith("guarded"):
            made = GuardedCache(made, Silent())
    yield made
    await made.close()


@pytest.mark.parametrize("value", [b"", b"text", bytes(range(256)) * 300])
async def test_what_is_put_is_found(cache: Cache, value: bytes) -> None:
    assert await cache.get(HERE) is None
    await cache.put(HERE, value, 60)
    assert await cache.get(HERE) == value
    await cache.put(HERE, b"another", 60)
    assert await cache.get(HERE) == b"another"


async def test_its_time_ends(cache: Cache) -> None:
    await cache.put(HERE, b"text", 0.02)
    await cache.put(CacheKey("me", "2"), b"text", 60)
    await asyncio.sleep(0.05)
    assert await cache.get(HERE) is None
    assert await cache.get(CacheKey("me", "2")) == b"text"


async def test_clearing_takes_one_partition_and_counts(cache: Cache) -> None:
    for number in range(25):
        await cache.put(CacheKey("me", str(number)), b"text", 60)
    await cache.put(CacheKey("you", "1"), b"text", 60)
    await cache.put(CacheKey("meandyou", "1"), b"text", 60)
    assert await cache.clear("me") == 25
    assert await cache.clear("me") == 0
    assert await cache.get(HERE) is None
    assert await cache.get(CacheKey("you", "1")) == b"text"
    assert await cache.get(CacheKey("meandyou", "1")) == b"text"
    await cache.put(HERE, b"text", 60)
    assert await cache.get(HERE) == b"text"


async def test_many_at_once_each_get_their_own(cache: Cache) -> None:
    keys = [CacheKey("me", str(number)) for number in range(200)]
    await asyncio.gather(*(cache.put(key, key.name.encode(), 60) for key in keys))
    found = await asyncio.gather(*(cache.get(key) for key in keys))
    assert found == [key.name.encode() for key in keys]


async def test_size_is_told_where_it_is_known(cache: Cache) -> None:
    before = cache.size()
    await cache.put(HERE, b"text", 60)
    after = cache.size()
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert (before.entries, after.entries) == (0, 1)
        assert before.bytes < after.bytes
