"""The cache in memory: what it keeps, for how long, and what goes first."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.infra.cache.base import CacheKey
from voiceforge.infra.cache.clearings import SharedClearings
from voiceforge.infra.cache.memory import MemoryCache

WORK = CacheKey("work", "1")


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> int:
        return int(self.now_s * 1e9)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def numbered(number: int, partition: str = "work") -> CacheKey:
    return CacheKey(partition, str(number))


async def test_what_is_put_is_found_until_its_time_is_over(clock: Clock) -> None:
    cache = MemoryCache(10_000, clock_ns=clock)
    await cache.put(WORK, b"result", 10)
    clock.now_s += 9.9
    assert await cache.get(WORK) == b"result"
    clock.now_s += 0.2
    assert await cache.get(WORK) is None
    assert cache.size().entries == 0


async def test_putting_again_replaces_and_renews(clock: Clock) -> None:
    cache = MemoryCache(10_000, clock_ns=clock)
    await cache.put(WORK, b"old", 10)
    size = cache.size()
    clock.now_s += 8
    await cache.put(WORK, b"new", 10)
    clock.now_s += 8
    assert await cache.get(WORK) == b"new"
    assert cache.size() == size


async def test_the_least_recently_used_goes_first(clock: Clock) -> None:
    cache = MemoryCache(5000, clock_ns=clock)
    for number in range(3):
        await cache.put(numbered(number), bytes(1000), 60)
    assert await cache.get(numbered(0))
    await cache.put(numbered(3), bytes(1000), 60)
    found = [number for number in range(4) if await cache.get(numbered(number))]
    assert found == [0, 2, 3]


async def test_what_is_too_large_is_not_kept_and_costs_nothing_else_its_place(clock: Clock) -> None:
    cache = MemoryCache(5000, clock_ns=clock)
    await cache.put(WORK, b"result", 60)
    await cache.put(numbered(2), bytes(6000), 60)
    assert await cache.get(numbered(2)) is None
    assert await cache.get(WORK) == b"result"
    await cache.put(WORK, bytes(6000), 60)
    assert await cache.get(WORK) is None, "the old value is not the answer any more"


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(0, 4000)), min_size=1, max_size=60
    )
)
def test_it_never_weighs_more_than_it_may_and_gives_only_what_was_put(
    puts: list[tuple[str, int, int]],
) -> None:
    async def check() -> None:
        cache = MemoryCache(9000, clock_ns=Clock())
        last: dict[CacheKey, bytes] = {}
        for partition, number, length in puts:
            key = numbered(number, partition)
            last[key] = bytes([number]) * length
            await cache.put(key, last[key], 60)
            assert cache.size().bytes <= 9000
        found = [key for key in last if await cache.get(key) is not None]
        for key in found:
            assert await cache.get(key) == last[key]
        assert cache.size().entries == len(found)
        assert await cache.clear("a") == sum(key.partition == "a" for key in found)
        for partition in "bc":
            await cache.clear(partition)
        assert (cache.size().entries, cache.size().bytes) == (0, 0)

    asyncio.run(check())


# -- several processes (here two mappings of one file, which is all they share)


@pytest.fixture
def mapped(tmp_path: Path) -> Callable[[], SharedClearings]:
    path = tmp_path / "clearings"
    path.write_bytes(bytes(4096))

    def make() -> SharedClearings:
        with path.open("r+b") as file:
            return SharedClearings(memoryview(mmap.mmap(file.fileno(), 0)))

    return make


async def test_clearing_reaches_the_caches_of_other_processes(mapped: Callable[[], SharedClearings]) -> None:
    one, other = (MemoryCache(1 << 20, clearings=mapped()) for _ in range(2))
    somebody = CacheKey("somebody", "1")
    for cache in (one, other):
        await cache.put(WORK, b"result", 60)
        await cache.put(somebody, b"result", 60)
    assert await one.clear("work") == 1
    assert await other.get(WORK) is None
    assert await other.get(somebody) == b"result"
    assert other.size().entries == 1
    await other.put(WORK, b"result", 60)
    assert await other.get(WORK) == b"result", "what comes after a clearing stays"
    assert await other.clear("work") == 1
    assert one.size().entries == 1


def test_too_little_shared_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        SharedClearings(memoryview(bytearray(8)))
