"""Redis on its bad days: gone, stalled, full, back again, or something else altogether. Requests go on."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from voiceforge.errors import Unavailable
from voiceforge.infra.cache.base import CacheKey, CacheUnreachable
from voiceforge.infra.cache.breaker import BreakerRule
from voiceforge.infra.cache.guarded import GuardedCache
from voiceforge.services.access import trusted
from voiceforge.services.result_cache import CacheReports, ResultCache
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.transcript import ModelRef
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.log_lines import log_lines
from voiceforge.testing.redis_server import RedisServer, find_redis, redis_server
from voiceforge.testing.scripted_services import spoken

pytestmark = pytest.mark.skipif(find_redis() is None, reason="there is no Redis server here")

TIMEOUT_S = 0.1
PAUSE_S = 0.2
HERE = CacheKey("me", "1")
GONE = "cache out of reach; going on without it"
BACK = "cache in reach again"
FULL = "cache takes nothing more; it is still read"
ROOM = "cache takes results again"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture(name="log_lines")
def kept_log_lines() -> Iterator[list[dict[str, Any]]]:
    with log_lines() as lines:
        yield lines


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("test")


Make = Callable[[str], GuardedCache]


@pytest.fixture
async def make(metrics: Metrics) -> AsyncIterator[Make]:
    from voiceforge.infra.cache.redis import RedisCache

    made: list[GuardedCache] = []

    def guarded(url: str) -> GuardedCache:
        inner = RedisCache(url, prefix="test", timeout_s=TIMEOUT_S)
        rule = BreakerRule(failures=3, first_pause_s=PAUSE_S, longest_pause_s=PAUSE_S)
        made.append(GuardedCache(inner, CacheReports(metrics), rule))
        return made[-1]

    yield guarded
    for cache in made:
        await cache.close()


def said(lines: list[Any]) -> list[str]:
    return [line["event"] for line in lines if line["event"].startswith("cache ")]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while True:
            if await condition():
                return
            await asyncio.sleep(PAUSE_S / 4)


async def holds(cache: GuardedCache, key: CacheKey, value: bytes) -> bool:
    await cache.put(key, value, 60)
    return await cache.get(key) == value


def faults(metrics: Metrics, fault: str) -> float:
    return metrics.total("cache_faults", fault=fault)


def available(metrics: Metrics, access: str) -> float:
    return metrics.total("cache_available", access=access)


async def test_killed_and_started_again(
    redis: RedisServer, make: Make, metrics: Metrics, log_lines: list[Any]
) -> None:
    cache = make(redis.url)
    assert await holds(cache, HERE, b"text")
    assert (available(metrics, "read"), available(metrics, "write")) == (1, 1)
    redis.kill()
    for _ in range(50):
        assert await cache.get(HERE) is None
        await cache.put(HERE, b"text", 60)
    assert said(log_lines) == [GONE]
    assert 3 <= faults(metrics, "unreachable") <= 5, "it is not asked any more"
    assert (available(metrics, "read"), available(metrics, "write")) == (0, 0)
    redis.start()
    await until(lambda: holds(cache, HERE, b"new"))
    assert said(log_lines) == [GONE, BACK]
    assert (available(metrics, "read"), available(metrics, "write")) == (1, 1)


async def test_restarted_between_two_requests_is_not_even_noticed(
    redis: RedisServer, make: Make, metrics: Metrics, log_lines: list[Any]
) -> None:
    cache = make(redis.url)
    await asyncio.gather(*(cache.put(CacheKey("me", str(number)), b"text", 60) for number in range(20)))
    redis.kill()
    redis.start()
    assert await cache.get(HERE) is None
    assert await holds(cache, HERE, b"text")
    assert said(log_lines) == []


async def test_stalled_it_costs_a_moment_once_and_gives_no_wrong_answer_afterwards(
    redis: RedisServer, make: Make, metrics: Metrics, log_lines: list[Any]
) -> None:
    cache = make(redis.url)
    keys = [CacheKey("me", str(number)) for number in range(64)]
    for key in keys:
        await cache.put(key, key.name.encode(), 60)
    redis.stall()
    began = time.perf_counter()
    assert set(await asyncio.gather(*(cache.get(key) for key in keys))) == {None}
    assert time.perf_counter() - began < 20 * TIMEOUT_S, "together, not one after the other"
    for _ in range(1000):
        assert await cache.get(HERE) is None
    assert said(log_lines) == [GONE]
    assert faults(metrics, "unreachable") < 100
    redis.resume()

    async def answers() -> bool:
        return await cache.get(HERE) is not None

    await until(answers)
    assert said(log_lines) == [GONE, BACK]
    # Answers to the requests that were given up must not be taken for those of later ones.
    for _ in range(3):
        found = await asyncio.gather(*(cache.get(key) for key in keys))
        assert found == [key.name.encode() for key in keys]


async def test_full_it_is_still_read_and_written_again_when_there_is_room(
    redis: RedisServer, make: Make, metrics: Metrics, log_lines: list[Any]
) -> None:
    cache = make(redis.url)
    assert await holds(cache, HERE, b"text")
    redis.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    redis.command("CONFIG", "SET", "maxmemory", "1")
    for number in range(50):
        await cache.put(CacheKey("me", f"late{number}"), b"text", 60)
        assert await cache.get(HERE) == b"text"
    assert said(log_lines) == [FULL]
    assert 3 <= faults(metrics, "refused") <= 5
    assert (available(metrics, "read"), available(metrics, "write")) == (1, 0)
    redis.command("CONFIG", "SET", "maxmemory", "0")
    await until(lambda: holds(cache, CacheKey("me", "later"), b"text"))
    assert said(log_lines) == [FULL, ROOM]


@pytest.mark.parametrize("answer", [None, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$99999999999\r\n"])
async def test_something_else_on_its_port(
    make: Make, metrics: Metrics, log_lines: list[Any], answer: bytes | None
) -> None:
    """Accepts and is silent; closes at once; speaks something else; promises what never comes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if answer:
                await reader.read(1)
                writer.write(answer)
            if answer == b"":
                writer.close()
            await asyncio.sleep(5)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    cache = make(f"redis://127.0.0.1:{port}")
    async with asyncio.timeout(5):
        for _ in range(20):
            assert await cache.get(HERE) is None
            await cache.put(HERE, b"text", 60)
    assert available(metrics, "write") == 0
    assert len(said(log_lines)) == 1
    server.close()


async def test_a_key_that_holds_something_else_is_a_miss(redis: RedisServer, make: Make) -> None:
    cache = make(redis.url)
    redis.command("LPUSH", "test:me:1", "text")
    assert await cache.get(HERE) is None
    assert await holds(cache, CacheKey("me", "2"), b"text")


async def test_a_wrong_password_is_out_of_reach(redis: RedisServer, make: Make, log_lines: list[Any]) -> None:
    redis.command("CONFIG", "SET", "requirepass", "right")
    wrong = make(f"redis://:wrong-password@127.0.0.1:{redis.port}")
    for _ in range(5):
        assert await wrong.get(HERE) is None
    assert said(log_lines) == [GONE]
    assert "wrong-password" not in str(log_lines)
    assert await holds(make(f"redis://:right@127.0.0.1:{redis.port}"), HERE, b"text")


async def test_clearing_says_so_where_it_cannot_be_done(redis: RedisServer, make: Make) -> None:
    cache = make(redis.url)
    assert await holds(cache, HERE, b"text")
    redis.kill()
    with pytest.raises(CacheUnreachable):
        await cache.clear(trusted("me"))


async def test_what_redis_sees_are_digests_and_the_texts_themselves(
    redis: RedisServer, make: Make, metrics: Metrics
) -> None:
    results = ResultCache(make(redis.url), recipe="", ttl_s=60, max_entry_bytes=1 << 20, metrics=metrics)
    audio = hashlib.sha256(b"audio").digest()
    key = results.key("a tenant", audio, ModelRef("tiny", "1"), TranscribeOptions(prompt="a prompt"))
    await results.keep(key, spoken("Hello there."))
    assert await results.find(key) is not None
    [name] = await names(redis)
    assert name == f"test:{key.partition}:{key.name}"
    assert not any(part in name for part in ("tenant", "tiny", "prompt", audio.hex()))
    assert int(redis.command("PTTL", name).removeprefix(b":")) > 0
    redis.kill()
    with pytest.raises(Unavailable):
        await results.clear(trusted("a tenant"))


async def names(redis: RedisServer) -> list[str]:
    from redis.asyncio import Redis

    async with Redis.from_url(redis.url, decode_responses=True) as client:
        return [str(name) async for name in client.scan_iter()]
