"""Windows in a real Redis: counted by many together; while it is gone or stalled each counts for itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from voiceforge.infra.cache.breaker import BreakerRule
from voiceforge.infra.limiter.base import LimiterUnreachable, Place, Window
from voiceforge.infra.limiter.guarded import GuardedLimiter
from voiceforge.infra.limiter.redis import RedisLimiter
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.log_lines import log_lines
from voiceforge.testing.redis_server import RedisServer, find_redis, redis_server

pytestmark = pytest.mark.skipif(find_redis() is None, reason="there is no Redis server here")

TIMEOUT_S = 0.25
PAUSE_S = 0.2
GONE = "limits out of reach; each process counts for itself"
BACK = "limits in reach again; all processes count together"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture(name="log_lines")
def kept_log_lines() -> Iterator[list[dict[str, Any]]]:
    with log_lines() as lines:
        yield lines


BUSY_S = 30.0
"""A machine that has too much to do is no reason to fail."""

Make = Callable[..., RedisLimiter]


@pytest.fixture
async def make(redis: RedisServer) -> AsyncIterator[Make]:
    made: list[RedisLimiter] = []

    def one(timeout_s: float = BUSY_S) -> RedisLimiter:
        made.append(RedisLimiter(redis.url, prefix="test", timeout_s=timeout_s))
        return made[-1]

    yield one
    for limiter in made:
        await limiter.close()


async def test_of_many_at_the_same_time_exactly_so_many_pass(make: Make) -> None:
    ones = [make() for _ in range(4)]
    spent = await asyncio.gather(*(ones[n % 4].spend(Window("t:many", 100)) for n in range(64)))
    spent += await asyncio.gather(*(ones[n % 4].spend(Window("t:many", 100)) for n in range(96)))
    assert sum(one.passed for one in spent) == 100
    assert all(0 <= one.remaining < 100 for one in spent)


async def test_whoever_waits_as_long_as_was_said_passes(make: Make) -> None:
    limiter, window = make(), Window("t:waits", 2, 1)
    assert (await limiter.spend(window)).passed
    assert (await limiter.spend(window)).remaining == 0
    refused = await limiter.spend(window)
    assert not refused.passed
    assert 0 < refused.reset_s <= 1
    await asyncio.sleep(refused.reset_s + 0.01)
    assert (await limiter.spend(window)).passed


async def test_a_limit_that_changes_holds_for_what_was_used_before(make: Make) -> None:
    limiter = make()
    for _ in range(3):
        assert (await limiter.spend(Window("t:changes", 3))).passed
    assert not (await limiter.spend(Window("t:changes", 2))).passed
    assert (await limiter.spend(Window("t:changes", 4))).passed


async def test_a_redis_that_is_not_there_is_told(make: Make, redis: RedisServer) -> None:
    limiter = make()
    redis.kill()
    with pytest.raises(LimiterUnreachable):
        await limiter.spend(Window("t:gone", 1))


@pytest.mark.parametrize("fault", ["killed", "stalled"])
async def test_without_redis_a_limit_holds_in_each_process_and_is_not_waited_for(
    make: Make, redis: RedisServer, log_lines: list[dict[str, Any]], fault: str
) -> None:
    metrics = Metrics("test")
    limiter = GuardedLimiter(make(TIMEOUT_S), metrics, BreakerRule(failures=2, first_pause_s=PAUSE_S))
    window = Window("t:fault", 10)
    for _ in range(4):
        assert (await limiter.spend(window)).passed
    redis.kill() if fault == "killed" else redis.stall()

    results = [await limiter.spend(window) for _ in range(2)]  # these found it out
    began = time.monotonic()
    results += [await limiter.spend(window) for _ in range(10)]
    assert time.monotonic() - began < TIMEOUT_S, "nobody waits for what is known to be away"
    assert sum(one.passed for one in results) == 6, "what passed before it went is remembered"
    assert metrics.total("limits_shared") == 0
    assert metrics.total("limiter_faults") == 2

    redis.start() if fault == "killed" else redis.resume()
    async with asyncio.timeout(10):
        while metrics.total("limits_shared") == 0:
            await asyncio.sleep(PAUSE_S / 4)
            await limiter.spend(Window("t:other", 1000))
    told = [line["event"] for line in log_lines if line["event"] in (GONE, BACK)]
    assert told == [GONE, BACK]


async def test_no_more_are_in_at_once_than_there_are_places(make: Make) -> None:
    ones = [make() for _ in range(4)]
    places = [Place("t:in", 10, f"holder-{n}") for n in range(64)]
    entered = await asyncio.gather(*(ones[n % 4].enter(place) for n, place in enumerate(places)))
    inside = [place for place, is_in in zip(places, entered, strict=True) if is_in]
    assert len(inside) == 10
    await ones[0].leave(inside[0])
    assert await ones[1].enter(places[0])
    assert not await ones[2].enter(Place("t:in", 10, "late"))


async def test_the_places_of_who_is_gone_are_free_after_a_while_and_those_in_use_are_kept(
    redis: RedisServer,
) -> None:
    limiter = RedisLimiter(redis.url, prefix="test", timeout_s=BUSY_S, kept_s=3.0)
    alive, dead = Place("t:kept", 2, "alive"), Place("t:kept", 2, "dead")
    assert await limiter.enter(alive)
    assert await limiter.enter(dead)
    for _ in range(4):
        await asyncio.sleep(0.8)
        await limiter.keep(alive)
    assert await limiter.enter(Place("t:kept", 2, "next"))
    assert not await limiter.enter(Place("t:kept", 2, "one too many"))
    await limiter.close()


async def test_places_are_counted_here_while_redis_is_away(make: Make, redis: RedisServer) -> None:
    limiter = GuardedLimiter(make(TIMEOUT_S), Metrics("test"), BreakerRule(failures=1, first_pause_s=60))
    first, second, third = (Place("t:away", 2, name) for name in ("a", "b", "c"))
    assert await limiter.enter(first)
    redis.kill()
    assert await limiter.enter(second)
    assert not await limiter.enter(third)
    await limiter.leave(first)
    assert await limiter.enter(third)
    await limiter.close()
