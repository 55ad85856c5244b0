"""Who works on which job. A job is taken with a token, and only who shows it may write to the job; a lease
that is not renewed ends, and the job can be taken again. So no work counts twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Select, case, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.ids import new_token
from voiceforge.infra.db.records import Claim, JobError, JobProgress, JobStatus, Rank
from voiceforge.infra.db.tables import transcriptions as table
from voiceforge.infra.db.transcriptions import job_of


async def claim_next(
    connection: AsyncConnection, ranks: Sequence[Rank], *, worker: str, now: float, lease_s: float
) -> Claim | None:
    """The job whose turn it is: of the highest rank, then the oldest. None: there is none for now."""
    query = select(table.c.id).where(table.c.status == JobStatus.QUEUED, table.c.available_at <= now)
    if set(ranks) != set(Rank):
        query = query.where(table.c.rank.in_([int(rank) for rank in ranks]))
    query = query.order_by(table.c.rank, table.c.id).limit(1)
    # What another is taking at this moment is passed over, not waited for. SQLite has one writer anyway.
    query = query.with_for_update(skip_locked=True)
    return await _claim(connection, query, worker=worker, now=now, lease_s=lease_s)


async def claim(
    connection: AsyncConnection, job_id: str, *, worker: str, now: float, lease_s: float
) -> Claim | None:
    """This one. None: it is not waiting, or not yet due."""
    query = select(table.c.id).where(
        table.c.id == job_id, table.c.status == JobStatus.QUEUED, table.c.available_at <= now
    )
    # Waited for, where it is just being changed: who was told of this job is not told of it again soon.
    query = query.with_for_update()
    return await _claim(connection, query, worker=worker, now=now, lease_s=lease_s)


async def _claim(
    connection: AsyncConnection, query: Select[tuple[str]], *, worker: str, now: float, lease_s: float
) -> Claim | None:
    found = (await connection.execute(query)).scalar()
    if found is None:
        return None
    token, until = new_token(), now + lease_s
    taken = await connection.execute(
        update(table)
        .where(table.c.id == found, table.c.status == JobStatus.QUEUED)
        .values(
            status=JobStatus.RUNNING,
            lease_token=token,
            lease_until=until,
            worker=worker,
            attempts=table.c.attempts + 1,
            started_at=case((table.c.started_at.is_(None), now), else_=table.c.started_at),
            ends_at=None,
        )
        .returning(table)
    )
    row = taken.first()
    return None if row is None else Claim(job_of(row), token, until)


async def renew(
    connection: AsyncConnection,
    claim: Claim,
    progress: JobProgress | None,
    *,
    now: float,
    lease_s: float,
    moved_on: bool = False,
) -> bool:
    """Keep it for another while; False: it is not ours any more. moved_on: this attempt has brought it
    further, so that earlier ones do not count against it."""
    values: dict[str, Any] = {"lease_until": now + lease_s}
    if progress is not None:
        values |= asdict(progress)
    if moved_on:
        values["attempts"] = 1
    return await _write(connection, claim, values)


async def still_wanted(connection: AsyncConnection, claim: Claim) -> bool:
    """Whether it is ours and nobody has asked to stop it."""
    found = await connection.execute(
        select(table.c.cancel_requested).where(table.c.id == claim.job.id, table.c.lease_token == claim.token)
    )
    row = found.first()
    return row is not None and not row[0]


async def end(
    connection: AsyncConnection,
    claim: Claim,
    status: JobStatus,
    *,
    now: float,
    error: JobError | None = None,
    done_s: float | None = None,
) -> bool:
    """It is over, and its policy runs; False: it is not ours any more, and nothing was written."""
    values: Mapping[str, Any] = {
        "status": status,
        "finished_at": now,
        "error": asdict(error) if error is not None else None,
        "lease_token": None,
        "lease_until": None,
        "erase_audio_at": claim.job.retention.erase_audio_at(now),
        "erase_text_at": claim.job.retention.erase_text_at(now),
        **({"done_s": done_s, "duration_s": done_s} if done_s is not None else {}),
    }
    return await _write(connection, claim, values)


async def give_back(
    connection: AsyncConnection, claim: Claim, *, available_at: float, counted: bool, error: JobError | None
) -> bool:
    """It shall be tried again, by whomever. counted: as an attempt that failed."""
    values: dict[str, Any] = {
        "status": JobStatus.QUEUED,
        "available_at": available_at,
        "lease_token": None,
        "lease_until": None,
        "error": asdict(error) if error is not None else None,
    }
    if not counted:
        values["attempts"] = table.c.attempts - 1
    return await _write(connection, claim, values)


async def running(connection: AsyncConnection, limit: int) -> list[Claim]:
    """What is being worked on, as it seems; first those that were not heard of for longest."""
    rows = await connection.execute(
        select(table).where(table.c.status == JobStatus.RUNNING).order_by(table.c.lease_until).limit(limit)
    )
    return [Claim(job_of(row), row.lease_token, row.lease_until) for row in rows]


async def waiting(connection: AsyncConnection, now: float, limit: int) -> list[tuple[str, Rank]]:
    """Those that could be taken now, the most urgent first."""
    rows = await connection.execute(
        select(table.c.id, table.c.rank)
        .where(table.c.status == JobStatus.QUEUED, table.c.available_at <= now)
        .order_by(table.c.rank, table.c.id)
        .limit(limit)
    )
    return [(row.id, Rank(row.rank)) for row in rows]


async def _write(connection: AsyncConnection, claim: Claim, values: Mapping[str, Any]) -> bool:
    done = await connection.execute(
        update(table)
        .where(
            table.c.id == claim.job.id,
            table.c.lease_token == claim.token,
            table.c.status == JobStatus.RUNNING,
        )
        .values(values)
    )
    return done.rowcount == 1
