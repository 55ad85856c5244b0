"""Jobs are taken once, kept by those who renew, and written by nobody else."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db import leases, line, transcriptions
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.records import Claim, JobError, JobProgress, JobStatus, NewJob, Rank
from voiceforge.infra.db.tables import transcriptions as table
from voiceforge.services.job_view import view_of

T0 = 1_700_000_000.0
LEASE_S = 30.0
ALL = tuple(Rank)


def job(number: int, rank: Rank = Rank.NORMAL, tenant: str = "default") -> NewJob:
    return NewJob(new_id("tr", T0 + number), tenant, rank, "m", {}, {}, T0 + number)


async def added(database: Database, *jobs: NewJob) -> list[str]:
    async with database.transaction() as connection:
        for new in jobs:
            await transcriptions.add(connection, new)
    return [new.id for new in jobs]


async def next_of(
    connection: AsyncConnection, now: float = T0 + 1000, ranks: tuple[Rank, ...] = ALL
) -> Claim | None:
    return await leases.claim_next(connection, ranks, worker="w", now=now, lease_s=LEASE_S)


async def taken(database: Database, now: float = T0 + 1000, ranks: tuple[Rank, ...] = ALL) -> Claim | None:
    async with database.transaction() as connection:
        return await next_of(connection, now, ranks)


async def test_the_urgent_first_then_the_oldest(database: Database) -> None:
    ids = await added(database, job(1, Rank.LOW), job(2), job(3, Rank.HIGH), job(4), job(5, Rank.HIGH))
    order = [claim.job.id for _ in ids if (claim := await taken(database))]
    assert order == [ids[2], ids[4], ids[1], ids[3], ids[0]]
    assert await taken(database) is None


async def test_takes_only_the_ranks_it_serves(database: Database) -> None:
    ids = await added(database, job(1), job(2, Rank.HIGH))
    claim = await taken(database, ranks=(Rank.HIGH,))
    assert claim
    assert claim.job.id == ids[1]
    assert await taken(database, ranks=(Rank.HIGH,)) is None


async def many_waiting(database: Database, count: int) -> set[str]:
    """As `added`, sooner: like one that was."""
    (first,) = await added(database, job(0))
    ids = [new_id("tr", T0 + number % 50) for number in range(count - 1)]
    async with database.transaction() as connection:
        (like,) = await connection.execute(select(table).where(table.c.id == first))
        others = [like._asdict() | {"id": job_id, "rank": number % 3} for number, job_id in enumerate(ids)]
        await connection.execute(insert(table), others)
    return {first, *ids}


async def test_no_job_is_lost_or_taken_twice_by_competing_workers(
    database: Database, database_url: str
) -> None:
    """Sixteen, half of them in what is to the database another process; some take one job at a time, others
    up to sixteen in one transaction."""
    ids = await many_waiting(database, 10_000)
    other = Database(database_url)

    async def worker(database: Database, at_a_time: int) -> list[str]:
        mine: list[str] = []
        while True:
            async with database.transaction() as connection:
                claims = [await next_of(connection) for _ in range(at_a_time)]
            mine += (claim.job.id for claim in claims if claim is not None)
            if None in claims:
                return mine

    hauls = await asyncio.gather(*(worker((database, other)[n % 2], 1 + n) for n in range(16)))
    await other.close()
    seen = Counter(job_id for haul in hauls for job_id in haul)
    assert set(seen) == ids
    assert max(seen.values()) == 1


async def test_waits_for_its_time(database: Database) -> None:
    await added(database, job(1))
    claim = await taken(database)
    assert claim
    error = JobError("unavailable", "unavailable", "away", True)
    async with database.transaction() as connection:
        assert await leases.give_back(connection, claim, available_at=T0 + 2000, counted=True, error=error)
    assert await taken(database, now=T0 + 1999) is None
    again = await taken(database, now=T0 + 2001)
    assert again
    assert (again.job.attempts, again.job.error) == (2, error)
    async with database.transaction() as connection:
        await leases.give_back(connection, again, available_at=T0, counted=False, error=None)
    third = await taken(database)
    assert third
    assert third.job.attempts == 2


async def test_who_lost_the_lease_writes_nothing(database: Database) -> None:
    (job_id,) = await added(database, job(1))
    first = await taken(database)
    assert first
    async with database.transaction() as connection:
        (seen,) = await leases.running(connection, 10)
        await leases.give_back(connection, seen, available_at=T0, counted=True, error=None)
    second = await taken(database)
    assert second
    progress = JobProgress(1.0, 2.0, 3.0)
    async with database.transaction() as connection:
        assert not await leases.still_wanted(connection, first)
        assert not await leases.renew(connection, first, progress, now=T0, lease_s=LEASE_S)
        assert not await leases.end(connection, first, JobStatus.COMPLETED, now=T0)
        assert await leases.renew(connection, second, progress, now=T0 + 5, lease_s=LEASE_S)
        assert await leases.end(connection, second, JobStatus.COMPLETED, now=T0 + 9, done_s=2.0)
        assert not await leases.end(connection, second, JobStatus.FAILED, now=T0 + 10)
        done = await transcriptions.get(connection, "default", job_id)
    assert done
    assert (done.status, done.finished_at, done.done_s, done.ends_at) == (
        JobStatus.COMPLETED,
        T0 + 9,
        2.0,
        3.0,
    )


async def test_who_takes_it_anew_knows_nothing_of_its_end(database: Database) -> None:
    (job_id,) = await added(database, job(1))
    first = await taken(database)
    assert first
    async with database.transaction() as connection:
        await leases.renew(connection, first, JobProgress(1.0, 9.0, T0 + 60), now=T0, lease_s=LEASE_S)
        seen = await transcriptions.get(connection, "default", job_id)
        await leases.give_back(connection, first, available_at=T0, counted=True, error=None)
    assert seen
    assert view_of(seen, T0 + 20).seconds_left == pytest.approx(40.0)
    assert view_of(seen, T0 + 70).seconds_left == 0.0
    second = await taken(database)
    assert second
    assert second.job.done_s == 1.0
    assert view_of(second.job, T0 + 20).seconds_left is None


async def test_a_wish_to_stop_is_seen(database: Database) -> None:
    (job_id,) = await added(database, job(1))
    claim = await taken(database)
    assert claim
    async with database.transaction() as connection:
        assert await leases.still_wanted(connection, claim)
        assert not await transcriptions.end_waiting(connection, claim.job, JobStatus.CANCELLED, T0)
        await transcriptions.request_cancel(connection, job_id)
        assert not await leases.still_wanted(connection, claim)


async def test_what_moves_on_has_all_its_attempts_again(database: Database) -> None:
    await added(database, job(1))
    for _ in range(3):
        claim = await taken(database)
        assert claim
        async with database.transaction() as connection:
            await leases.give_back(connection, claim, available_at=T0, counted=True, error=None)
    claim = await taken(database)
    assert claim
    assert claim.job.attempts == 4
    async with database.transaction() as connection:
        await leases.renew(connection, claim, None, now=T0, lease_s=LEASE_S, moved_on=True)
        row = await transcriptions.get(connection, "default", claim.job.id)
    assert row
    assert row.attempts == 1


async def test_taking_the_next_reads_the_index_not_the_table(database: Database) -> None:
    """Also where the heap is large: an explain plan, since speed is not for tests."""
    await added(database, *(job(n) for n in range(200)))
    query = (
        "SELECT id FROM transcriptions WHERE status = 'queued' AND available_at <= 1e12"
        " ORDER BY rank, id LIMIT 1"
    )
    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
    async with database.reading() as connection:
        if not database.is_sqlite:
            await connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = " ".join(str(row) for row in await connection.execute(text(explain + query)))
    assert "ix_transcriptions_waiting" in plan
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan


async def test_who_was_told_of_a_job_waits_for_it_where_it_is_just_being_changed(database: Database) -> None:
    (job_id,) = await added(database, job(1))
    changing = asyncio.Event()
    looked = asyncio.Event()

    async def change() -> None:
        async with database.transaction() as connection:
            await line.set_told(connection, [job_id], T0)
            changing.set()
            await looked.wait()

    async def take() -> Claim | None:
        await changing.wait()
        asyncio.get_running_loop().call_later(0.1, looked.set)  # while it waits for the other
        async with database.transaction() as connection:
            return await leases.claim(connection, job_id, worker="w", now=T0 + 1000, lease_s=LEASE_S)

    _, claim = await asyncio.gather(change(), take())
    assert claim is not None
