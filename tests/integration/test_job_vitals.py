"""How jobs are is told to health checks and metrics, also where what they need is away."""

from __future__ import annotations

from voiceforge.infra.db import leases, transcriptions
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.records import NewJob, Rank
from voiceforge.infra.jobqueue.embedded import EmbeddedQueue
from voiceforge.services.health import Check
from voiceforge.services.job_vitals import JobVitals
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.memory_blobs import MemoryBlobs

NOW = 1_700_000_000.0


async def accepted(database: Database, waits_s: float, rank: Rank = Rank.NORMAL) -> str:
    at = NOW - waits_s
    new = NewJob(
        id=new_id("tr", at), tenant="default", rank=rank, model="m", options={}, metadata={}, created_at=at
    )
    async with database.transaction() as connection:
        await transcriptions.add(connection, new)
    return new.id


def vitals(database: Database, metrics: Metrics, queue: EmbeddedQueue | None = None) -> JobVitals:
    return JobVitals(database=database, blobs=MemoryBlobs(), queue=queue, observer=metrics, clock=lambda: NOW)


def named(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


async def test_it_tells_how_many_wait_and_for_how_long(database: Database) -> None:
    metrics = Metrics("test")
    for waits_s in (10.0, 60.0):
        await accepted(database, waits_s)
    await accepted(database, 5.0, Rank.HIGH)
    worked_on = await accepted(database, 90.0, Rank.LOW)
    async with database.transaction() as connection:
        assert await leases.claim(connection, worked_on, worker="w", now=NOW, lease_s=30)
    looked = vitals(database, metrics)
    await looked.look()
    checks = named(looked.checks())
    assert {check.status for check in checks.values()} == {"ok"}
    assert checks["jobs"].data == {"waiting": 3, "running": 1, "oldest_s": 60.0}
    assert metrics.total("job_queue_depth", lane="bulk") == 2
    assert metrics.total("job_queue_age_seconds", lane="bulk") == 60.0
    assert metrics.total("job_queue_age_seconds", lane="interactive") == 5.0
    assert metrics.total("jobs_running") == 1


async def test_one_that_waits_for_long_shows(database: Database) -> None:
    await accepted(database, 901.0)
    looked = vitals(database, Metrics("test"))
    await looked.look()
    assert named(looked.checks())["jobs"].status == "degraded"


async def test_what_is_away_shows_and_the_rest_is_told_all_the_same(database: Database) -> None:
    looked = vitals(database, Metrics("test"), EmbeddedQueue())  # which cannot be asked
    database.refuse("the database is being opened")
    await looked.look()
    checks = named(looked.checks())
    assert (checks["database"].status, checks["database"].detail) == (
        "degraded",
        "the database is being opened",
    )
    assert checks["job_queue"].status == "degraded"
    assert checks["store"].status == "ok"
    database.refuse(None)
    await looked.look()
    assert named(looked.checks())["database"].status == "ok"
