"""Transcriptions that are jobs: made, shown, listed, cancelled, erased. Who works on them is in `leases`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select, update
from sqlalchemy.engine import Row
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.records import Job, JobError, JobFilter, JobStatus, NewJob, Rank, Retention
from voiceforge.infra.db.tables import transcriptions as table

_MOST_COUNTED = 1000
"""A place in the queue beyond this one is not worth counting to."""


class IdempotencyKeyTaken(Exception):
    """The tenant used the key before."""


async def add(connection: AsyncConnection, new: NewJob) -> None:
    """
    Raises:
        IdempotencyKeyTaken: the transaction is of no more use.
    """
    values = asdict(new) | {
        "rank": int(new.rank),
        "status": JobStatus.QUEUED,
        "available_at": new.created_at,
        "attempts": 0,
        "cancel_requested": False,
        "done_s": 0.0,
    }
    try:
        await connection.execute(insert(table).values(values))
    except IntegrityError as error:
        if new.idempotency_key is not None:
            raise IdempotencyKeyTaken from error
        raise


async def get(connection: AsyncConnection, tenant: str, job_id: str, *, lock: bool = False) -> Job | None:
    """lock: nobody else changes it until the end of the transaction."""
    query = select(table).where(table.c.id == job_id, table.c.tenant == tenant)
    return _one(await connection.execute(query.with_for_update() if lock else query))


async def by_ids(connection: AsyncConnection, tenant: str, job_ids: Sequence[str]) -> dict[str, Job]:
    """Those of them that there are."""
    query = select(table).where(table.c.tenant == tenant, table.c.id.in_(job_ids))
    return {row.id: job_of(row) for row in await connection.execute(query)}


async def by_idempotency_key(connection: AsyncConnection, tenant: str, key: str) -> Job | None:
    query = select(table).where(table.c.tenant == tenant, table.c.idempotency_key == key)
    return _one(await connection.execute(query))


async def newest(
    connection: AsyncConnection, tenant: str, wanted: JobFilter, *, before: str | None, limit: int
) -> list[Job]:
    """The newest first. before: only those made before the one with this id."""
    query = select(table).where(table.c.tenant == tenant)
    if wanted.status is not None:
        query = query.where(table.c.status == wanted.status)
    if wanted.batch_id is not None:
        query = query.where(table.c.batch_id == wanted.batch_id)
    if wanted.model is not None:
        query = query.where(table.c.model == wanted.model)
    # Ids begin with the time: the index over them serves the dates too.
    if wanted.created_after is not None:
        query = query.where(table.c.id >= _first_id(wanted.created_after + 0.001))
    if wanted.created_before is not None:
        query = query.where(table.c.id < _first_id(wanted.created_before))
    if before is not None:
        query = query.where(table.c.id < before)
    rows = await connection.execute(query.order_by(table.c.id.desc()).limit(limit))
    return [job_of(row) for row in rows]


async def ahead_of(connection: AsyncConnection, job: Job) -> int:
    """How many wait before this one; no more than 1,000 are counted."""
    waiting = (
        select(table.c.id)
        .where(
            table.c.status == JobStatus.QUEUED,
            or_(table.c.rank < int(job.rank), and_(table.c.rank == int(job.rank), table.c.id < job.id)),
        )
        .limit(_MOST_COUNTED)
        .subquery()
    )
    return int((await connection.execute(select(func.count()).select_from(waiting))).scalar_one())


async def request_cancel(connection: AsyncConnection, job_id: str) -> None:
    """Whoever works on it stops soon."""
    await connection.execute(update(table).where(table.c.id == job_id).values(cancel_requested=True))


async def end_waiting(connection: AsyncConnection, job: Job, status: JobStatus, now: float) -> bool:
    """A job that nobody works on ends without having been worked on; whether it was such a one."""
    done = await connection.execute(
        update(table)
        .where(table.c.id == job.id, table.c.status == JobStatus.QUEUED)
        .values(
            status=status,
            finished_at=now,
            cancel_requested=status == JobStatus.CANCELLED,
            erase_audio_at=job.retention.erase_audio_at(now),
            erase_text_at=job.retention.erase_text_at(now),
        )
    )
    return done.rowcount == 1


async def queue_again(connection: AsyncConnection, job_id: str, now: float) -> bool:
    """A failed or cancelled one gets all its attempts anew; whether it was such a one."""
    done = await connection.execute(
        update(table)
        .where(
            table.c.id == job_id,
            table.c.status.in_((JobStatus.FAILED, JobStatus.CANCELLED)),
            table.c.audio_erased_at.is_(None),
        )
        .values(
            status=JobStatus.QUEUED,
            attempts=0,
            available_at=now,
            finished_at=None,
            error=None,
            cancel_requested=False,
            erase_audio_at=None,
            erase_text_at=None,
            text_erased_at=None,
        )
    )
    return done.rowcount == 1


async def set_recording(connection: AsyncConnection, job_id: str, recording_id: str) -> None:
    await connection.execute(update(table).where(table.c.id == job_id).values(recording_id=recording_id))


async def forget(connection: AsyncConnection, job_id: str) -> None:
    """The row, its chunks, result and events."""
    await connection.execute(delete(table).where(table.c.id == job_id))


async def text_due(connection: AsyncConnection, now: float, limit: int) -> list[Job]:
    """Those whose text goes now by policy; nobody else changes them until the end of the transaction."""
    return await _due(connection, table.c.erase_text_at, now, limit)


async def audio_due(connection: AsyncConnection, now: float, limit: int) -> list[Job]:
    """Likewise their audio."""
    return await _due(connection, table.c.erase_audio_at, now, limit)


async def _due(connection: AsyncConnection, at: ColumnElement[Any], now: float, limit: int) -> list[Job]:
    rows = await connection.execute(
        select(table).where(at <= now).order_by(at).limit(limit).with_for_update(skip_locked=True)
    )
    return [job_of(row) for row in rows]


async def note_text_erased(connection: AsyncConnection, job_id: str, now: float) -> None:
    await connection.execute(
        update(table).where(table.c.id == job_id).values(erase_text_at=None, text_erased_at=now)
    )


async def note_audio_erased(connection: AsyncConnection, job_id: str, now: float) -> None:
    """It refers to no recording any more."""
    await connection.execute(
        update(table)
        .where(table.c.id == job_id)
        .values(erase_audio_at=None, audio_erased_at=now, recording_id=None)
    )


async def refers_to(connection: AsyncConnection, recording_id: str) -> bool:
    """Whether anything still needs the recording."""
    found = await connection.execute(
        select(table.c.id)
        .where(table.c.recording_id == recording_id, table.c.audio_erased_at.is_(None))
        .limit(1)
    )
    return found.first() is not None


def _first_id(at: float) -> str:
    return new_id("tr", at)[:15]


def _one(rows: Any) -> Job | None:
    row = rows.first()
    return None if row is None else job_of(row)


def jobs_of(rows: Sequence[Row[Any]]) -> list[Job]:
    return [job_of(row) for row in rows]


def job_of(row: Row[Any]) -> Job:
    columns = row._mapping
    return Job(
        **{name: columns[name] for name in _PLAIN},
        status=JobStatus(columns["status"]),
        rank=Rank(columns["rank"]),
        error=JobError(**columns["error"]) if columns["error"] else None,
        retention=Retention(**(columns["retention"] or {})),
    )


_MADE = frozenset({"status", "rank", "error", "retention"})
_PLAIN = tuple(name for name in Job.__dataclass_fields__ if name not in _MADE)
