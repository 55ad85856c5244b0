"""Jobs that wait: how many, for how long, and which of them workers elsewhere should be told of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.records import Job, JobStatus, Rank
from voiceforge.infra.db.tables import transcriptions as table
from voiceforge.infra.db.transcriptions import job_of

_MOST_COUNTED = 100_000


@dataclass(frozen=True, slots=True)
class LineLength:
    """waiting: jobs that could be taken now; no more than 100,000 are counted. longest_wait_s: of these."""

    waiting: int
    longest_wait_s: float


async def lengths(connection: AsyncConnection, now: float) -> dict[Rank, LineLength]:
    found = {}
    for rank in Rank:
        waiting = (
            select(table.c.available_at)
            .where(_due(now), table.c.rank == int(rank))
            .order_by(table.c.id)
            .limit(_MOST_COUNTED)
            .subquery()
        )
        query = select(func.count(), func.min(waiting.c.available_at)).select_from(waiting)
        count, since = (await connection.execute(query)).one()
        found[rank] = LineLength(count, max(now - since, 0.0) if count else 0.0)
    return found


async def being_worked_on(connection: AsyncConnection) -> int:
    query = select(func.count()).where(table.c.status == JobStatus.RUNNING)
    return int((await connection.execute(query)).scalar_one())


async def newly_due(connection: AsyncConnection, now: float, limit: int) -> list[Job]:
    """Those nobody was told of since they can be taken: after a failed attempt, or a lost worker. Accepting a
    job counts as telling of it."""
    return await _first(connection, and_(_due(now), _told_at() < table.c.available_at), limit)


async def told_before(
    connection: AsyncConnection, ranks: Sequence[Rank], now: float, before: float, limit: int
) -> list[Job]:
    """Those that still wait though workers were told of them, the last time before `before`."""
    condition = and_(
        _due(now),
        table.c.rank.in_([int(rank) for rank in ranks]),
        _told_at() >= table.c.available_at,
        _told_at() < before,
    )
    return await _first(connection, condition, limit)


async def set_told(connection: AsyncConnection, job_ids: Sequence[str], now: float) -> None:
    await connection.execute(update(table).where(table.c.id.in_(job_ids)).values(offered_at=now))


async def _first(connection: AsyncConnection, condition: ColumnElement[bool], limit: int) -> list[Job]:
    """The most urgent of them."""
    rows = await connection.execute(
        select(table).where(condition).order_by(table.c.rank, table.c.id).limit(limit)
    )
    return [job_of(row) for row in rows]


def _due(now: float) -> ColumnElement[bool]:
    return and_(table.c.status == JobStatus.QUEUED, table.c.available_at <= now)


def _told_at() -> ColumnElement[float]:
    return func.coalesce(table.c.offered_at, table.c.created_at)
