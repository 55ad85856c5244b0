"""Telling workers through a real Redis: in the order of urgency, never at the expense of who tells, and again
when Redis has lost it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from voiceforge.infra.db import leases, transcriptions
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.records import NewJob, Rank
from voiceforge.infra.jobqueue.base import Lane, Task, TaskKind
from voiceforge.infra.jobqueue.celery import CeleryQueue, celery_app
from voiceforge.services.job_news import JobNews
from voiceforge.services.job_rules import RunRules
from voiceforge.services.job_sweep import JobSweep, Workplace
from voiceforge.testing.redis_server import RedisServer, find_redis, redis_server


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if find_redis() is None:
        pytest.skip("there is no Redis server here")
    with redis_server(tmp_path) as server:
        yield server


class Seen:
    """What the queue told who keeps the metrics."""

    def __init__(self) -> None:
        self.untold = 0
        self.available: list[bool] = []

    def observe_untold(self, tasks: int) -> None:
        self.untold += tasks

    def queue_available(self, available: bool) -> None:
        self.available.append(available)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest_asyncio.fixture
async def queue(redis: RedisServer, seen: Seen) -> AsyncIterator[CeleryQueue]:
    opened = CeleryQueue(celery_app(redis.url), seen)
    yield opened
    await opened.close()


def job(name: str, lane: Lane = Lane.BULK, priority: int = 3) -> Task:
    return Task(TaskKind.TRANSCRIPTION, name, lane, priority)


def taken(redis: RedisServer, count: int) -> list[tuple[str, object]]:
    """The names of the next tasks, as a worker of all lanes takes them, and what they carry."""
    found = []
    with celery_app(redis.url).connection_for_read() as connection:
        app = celery_app(redis.url)
        consumer = app.amqp.TaskConsumer(connection, no_ack=True)
        consumer.on_message = lambda message: found.append(
            (message.headers["task"], json.loads(message.body)[0])
        )
        consumer.qos(prefetch_count=1)
        with consumer:
            while len(found) < count:
                connection.drain_events(timeout=10)
    return found


async def test_the_urgent_are_handed_out_first_and_carry_nothing_but_ids(
    redis: RedisServer, queue: CeleryQueue
) -> None:
    assert await queue.offer([job("low", priority=6), job("normal-1"), job("normal-2")])
    assert await queue.offer([job("high", Lane.INTERACTIVE, 0)])
    assert await queue.held() == {
        Lane.INTERACTIVE: 1,
        Lane.BULK: 3,
        Lane.TRAINING: 0,
        Lane.MAINTENANCE: 0,
    }
    assert taken(redis, 4) == [
        ("voiceforge.transcription", [name]) for name in ("high", "normal-1", "normal-2", "low")
    ]


async def test_a_broker_that_is_gone_costs_a_moment_and_one_line(
    redis: RedisServer, queue: CeleryQueue, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    assert await queue.offer([job("one")])
    redis.kill()
    for _ in range(20):
        assert not await queue.offer([job("two"), job("three")])
    assert await queue.held() is None
    assert seen.untold == 40
    assert seen.available == [True, False]
    assert [r.levelname for r in caplog.records if r.name.startswith("voiceforge")].count("WARNING") == 1


async def test_a_broker_that_hangs_is_given_up_on_and_asked_again(
    redis: RedisServer, queue: CeleryQueue, seen: Seen
) -> None:
    assert await queue.offer([job("one")])
    redis.stall()
    try:
        assert not await queue.offer([job("two")])
    finally:
        redis.resume()
    deadline = time.monotonic() + 20
    while not await queue.offer([job("three")]):
        assert time.monotonic() < deadline
    assert seen.available == [True, False, True]


# -- told again


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sweep(database: Database, queue: CeleryQueue, clock: Clock) -> JobSweep:
    return JobSweep(
        database=database,
        queue=queue,
        news=JobNews(),
        rules=RunRules(),
        workplace=Workplace("here", 1, 1),
        clock=clock,
    )


async def accepted(database: Database, at: float, rank: Rank = Rank.NORMAL) -> str:
    job_id = new_id("tr", at)
    new = NewJob(id=job_id, tenant="default", rank=rank, model="m", options={}, metadata={}, created_at=at)
    async with database.transaction() as connection:
        await transcriptions.add(connection, new)
    return job_id


async def tasks(queue: CeleryQueue) -> int:
    held = await queue.held()
    assert held is not None
    return sum(held.values())


async def test_what_the_broker_lost_is_told_again_once(
    redis: RedisServer, queue: CeleryQueue, database: Database, sweep: JobSweep, clock: Clock
) -> None:
    for rank in (Rank.HIGH, Rank.NORMAL, Rank.LOW):
        await queue.offer([job(await accepted(database, clock(), rank), Lane.BULK)])
    redis.kill()
    redis.start()
    while (await queue.held()) is None:
        pass
    await sweep.run()
    assert await tasks(queue) == 0  # they were told of a moment ago: a worker may have them
    clock.now += 6
    await sweep.run()
    assert await queue.held() == {
        Lane.INTERACTIVE: 1,
        Lane.BULK: 2,
        Lane.TRAINING: 0,
        Lane.MAINTENANCE: 0,
    }
    for _ in range(5):
        clock.now += 6
        await sweep.run()
    assert await tasks(queue) == 3


async def test_a_long_line_is_not_told_again_while_the_broker_holds_it(
    queue: CeleryQueue, database: Database, sweep: JobSweep, clock: Clock
) -> None:
    await queue.offer([job(await accepted(database, clock())) for _ in range(30)])
    for _ in range(5):
        clock.now += 600
        await sweep.run()
    assert await tasks(queue) == 30


async def test_a_job_is_told_when_its_next_attempt_is_due(
    queue: CeleryQueue, database: Database, sweep: JobSweep, clock: Clock
) -> None:
    job_id = await accepted(database, clock())
    async with database.transaction() as connection:
        claim = await leases.claim(connection, job_id, worker="w", now=clock(), lease_s=30)
        assert claim is not None
        await leases.give_back(connection, claim, available_at=clock() + 60, counted=True, error=None)
    clock.now += 59
    await sweep.run()
    assert await tasks(queue) == 0
    clock.now += 2
    await sweep.run()
    await sweep.run()
    assert await tasks(queue) == 1


async def test_a_lost_job_is_told_again_with_its_loss(
    queue: CeleryQueue, database: Database, sweep: JobSweep, clock: Clock
) -> None:
    job_id = await accepted(database, clock())
    async with database.transaction() as connection:
        assert await leases.claim(connection, job_id, worker="elsewhere/1/1", now=clock(), lease_s=30)
    clock.now += 31
    assert await sweep.run()
    assert await tasks(queue) == 1
