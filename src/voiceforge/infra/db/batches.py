"""Batches: made, shown with how their transcriptions are, listed, forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.records import Batch, Job, JobStatus, RefusedItem
from voiceforge.infra.db.tables import batches as table
from voiceforge.infra.db.tables import transcriptions
from voiceforge.infra.db.transcriptions import IdempotencyKeyTaken, jobs_of

_MADE = frozenset({"refused"})
_PLAIN = tuple(name for name in Batch.__dataclass_fields__ if name not in _MADE)


async def add(connection: AsyncConnection, batch: Batch) -> None:
    """
    Raises:
        IdempotencyKeyTaken: the transaction is of no more use.
    """
    values = {name: getattr(batch, name) for name in _PLAIN}
    values["refused"] = [asdict(item) for item in batch.refused]
    try:
        await connection.execute(insert(table).values(values))
    except IntegrityError as error:
        if batch.idempotency_key is not None:
            raise IdempotencyKeyTaken from error
        raise


async def get(connection: AsyncConnection, tenant: str, batch_id: str, *, lock: bool = False) -> Batch | None:
    """lock: until the end of the transaction nobody else gets it so."""
    query = select(table).where(table.c.id == batch_id, table.c.tenant == tenant)
    return _one(await connection.execute(query.with_for_update(key_share=True) if lock else query))


async def by_idempotency_key(connection: AsyncConnection, tenant: str, key: str) -> Batch | None:
    query = select(table).where(table.c.tenant == tenant, table.c.idempotency_key == key)
    return _one(await connection.execute(query))


async def newest(connection: AsyncConnection, tenant: str, *, before: str | None, limit: int) -> list[Batch]:
    """The newest first. before: only those made before the one with this id."""
    query = select(table).where(table.c.tenant == tenant)
    if before is not None:
        query = query.where(table.c.id < before)
    rows = await connection.execute(query.order_by(table.c.id.desc()).limit(limit))
    return [_batch(row._mapping) for row in rows]


async def counts(
    connection: AsyncConnection, batch_ids: Sequence[str]
) -> Mapping[str, Mapping[JobStatus, int]]:
    """How many transcriptions of each batch are of which status; those that are not there are none."""
    rows = await connection.execute(
        select(transcriptions.c.batch_id, transcriptions.c.status, func.count())
        .where(transcriptions.c.batch_id.in_(batch_ids))
        .group_by(transcriptions.c.batch_id, transcriptions.c.status)
    )
    found: dict[str, dict[JobStatus, int]] = {batch_id: {} for batch_id in batch_ids}
    for batch_id, status, count in rows:
        found[batch_id][JobStatus(status)] = count
    return found


async def goes_on(connection: AsyncConnection, batch_id: str) -> bool:
    """Whether any of its transcriptions is not over."""
    found = await connection.execute(
        select(transcriptions.c.id)
        .where(
            transcriptions.c.batch_id == batch_id,
            transcriptions.c.status.in_((JobStatus.QUEUED, JobStatus.RUNNING)),
        )
        .limit(1)
    )
    return found.first() is not None


async def items(connection: AsyncConnection, batch_id: str, *, after: int, limit: int) -> list[Job]:
    """Its transcriptions in the order they were sent, behind the one with this index."""
    rows = await connection.execute(
        select(transcriptions)
        .where(transcriptions.c.batch_id == batch_id, transcriptions.c.batch_index > after)
        .order_by(transcriptions.c.batch_index)
        .limit(limit)
    )
    return jobs_of(rows.all())


async def forget(connection: AsyncConnection, tenant: str, batch_id: str) -> None:
    """Nothing may be in it any more."""
    await connection.execute(delete(table).where(table.c.id == batch_id, table.c.tenant == tenant))


def _one(rows: Any) -> Batch | None:
    row = rows.first()
    return None if row is None else _batch(row._mapping)


def _batch(columns: Any) -> Batch:
    plain = {name: columns[name] for name in _PLAIN}
    return Batch(**plain, refused=tuple(RefusedItem(**item) for item in columns["refused"]))
