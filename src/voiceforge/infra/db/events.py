"""What happened, in order: for those who watch a job, and for webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.records import Event, JobStatus
from voiceforge.infra.db.tables import OF_CHUNKS, transcriptions
from voiceforge.infra.db.tables import events as table

# Not as a parameter: SQLite would not see that its index over these fits.
_OF_CHUNKS = text(f"events.{OF_CHUNKS}")


async def add(
    connection: AsyncConnection,
    tenant: str,
    kind: str,
    data: Mapping[str, Any],
    *,
    now: float,
    transcription_id: str | None = None,
    batch_id: str | None = None,
) -> Event:
    """data: nothing that was spoken."""
    values = {
        "id": new_id("evt", now),
        "tenant": tenant,
        "transcription_id": transcription_id,
        "batch_id": batch_id,
        "type": kind,
        "data": dict(data),
        "created_at": now,
    }
    added = await connection.execute(insert(table).values(values).returning(table))
    return _event(added.one()._mapping)


async def get(connection: AsyncConnection, event_id: str) -> Event | None:
    row = (await connection.execute(select(table).where(table.c.id == event_id))).first()
    return None if row is None else _event(row._mapping)


async def of(
    connection: AsyncConnection, tenant: str, job_id: str, *, after: int, limit: int = 200
) -> list[Event]:
    """Those of a transcription, after the one with this seq."""
    rows = await connection.execute(
        select(table)
        .where(table.c.transcription_id == job_id, table.c.tenant == tenant, table.c.seq > after)
        .order_by(table.c.seq)
        .limit(limit)
    )
    return [_event(row._mapping) for row in rows]


async def last(
    connection: AsyncConnection, tenant: str, job_id: str, kind: str, *, before: int
) -> Event | None:
    """The last of this type before the one with this seq."""
    rows = await connection.execute(
        select(table)
        .where(
            table.c.transcription_id == job_id,
            table.c.tenant == tenant,
            table.c.type == kind,
            table.c.seq < before,
        )
        .order_by(table.c.seq.desc())
        .limit(1)
    )
    row = rows.first()
    return None if row is None else _event(row._mapping)


async def is_there(connection: AsyncConnection, tenant: str, job_id: str, seq: int) -> bool:
    """Whether the transcription has an event with this seq, still."""
    found = await connection.execute(
        select(table.c.seq).where(
            table.c.seq == seq, table.c.transcription_id == job_id, table.c.tenant == tenant
        )
    )
    return found.first() is not None


async def jobs_with_old_chunks(connection: AsyncConnection, before: float, limit: int) -> list[str]:
    """Ids of transcriptions that were over for good before then, and whose chunks have events still. A failed
    one may be tried again, and go on behind its chunks."""
    over = (JobStatus.COMPLETED, JobStatus.CANCELLED)
    rows = await connection.execute(
        select(table.c.transcription_id)
        .distinct()
        .join(transcriptions, transcriptions.c.id == table.c.transcription_id)
        .where(
            _OF_CHUNKS,
            table.c.created_at < before,
            transcriptions.c.status.in_(over),
            transcriptions.c.finished_at < before,
        )
        .limit(limit)
    )
    return list(rows.scalars())


async def forget_chunks(connection: AsyncConnection, job_ids: Sequence[str], before: float) -> None:
    """Events of the chunks of these transcriptions, made before then."""
    await connection.execute(
        delete(table).where(table.c.transcription_id.in_(job_ids), _OF_CHUNKS, table.c.created_at < before)
    )


def _event(columns: Any) -> Event:
    return Event(**{name: columns[name] for name in Event.__dataclass_fields__})
