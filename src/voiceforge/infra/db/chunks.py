"""Finished parts of unfinished transcriptions."""

from __future__ import annotations

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.records import Job
from voiceforge.infra.db.tables import chunks as table


async def add(connection: AsyncConnection, job: Job, number: int, data: bytes, now: float) -> None:
    await connection.execute(
        insert(table).values(
            transcription_id=job.id, number=number, tenant=job.tenant, data=data, created_at=now
        )
    )


async def of(
    connection: AsyncConnection, tenant: str, job_id: str, *, since: int = 0
) -> list[tuple[int, bytes]]:
    """Their numbers and contents, in order, from number `since` on."""
    rows = await connection.execute(
        select(table.c.number, table.c.data)
        .where(table.c.transcription_id == job_id, table.c.tenant == tenant, table.c.number >= since)
        .order_by(table.c.number)
    )
    return [(row.number, row.data) for row in rows]


async def forget(connection: AsyncConnection, job_id: str) -> None:
    await connection.execute(delete(table).where(table.c.transcription_id == job_id))
