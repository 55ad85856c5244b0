"""Finished parts of unfinished transcriptions."""

from __future__ import annotations

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.records import Job
from voiceforge.infra.db.tables import chunks as table


async def put(connection: AsyncConnection, job: Job, number: int, data: bytes, now: float) -> None:
    """It takes the place of an earlier one of its number and of all that came after that."""
    await connection.execute(
        delete(table).where(table.c.transcription_id == job.id, table.c.number >= number)
    )
    await connection.execute(
        insert(table).values(
            transcription_id=job.id, number=number, tenant=job.tenant, data=data, created_at=now
        )
    )


async def of(connection: AsyncConnection, tenant: str, job_id: str, *, since: int = 0) -> list[bytes]:
    """In order, from number `since` on."""
    rows = await connection.execute(
        select(table.c.data)
        .where(table.c.transcription_id == job_id, table.c.tenant == tenant, table.c.number >= since)
        .order_by(table.c.number)
    )
    return [bytes(data) for data in rows.scalars()]


async def get(connection: AsyncConnection, tenant: str, job_id: str, number: int) -> bytes | None:
    rows = await connection.execute(
        select(table.c.data).where(
            table.c.transcription_id == job_id, table.c.tenant == tenant, table.c.number == number
        )
    )
    found = rows.scalar()
    return None if found is None else bytes(found)


async def forget(connection: AsyncConnection, job_id: str) -> None:
    await connection.execute(delete(table).where(table.c.transcription_id == job_id))
