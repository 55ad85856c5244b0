"""Finished transcripts. The search in them is in `search`."""

from __future__ import annotations

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db import search_index
from voiceforge.infra.db.records import Job
from voiceforge.infra.db.tables import results as table


async def add(connection: AsyncConnection, job: Job, data: bytes, spoken: str, now: float) -> None:
    await connection.execute(
        insert(table).values(
            transcription_id=job.id, tenant=job.tenant, data=data, text=spoken, created_at=now
        )
    )


async def get(connection: AsyncConnection, tenant: str, job_id: str) -> bytes | None:
    rows = await connection.execute(
        select(table.c.data).where(table.c.transcription_id == job_id, table.c.tenant == tenant)
    )
    found = rows.scalar()
    return None if found is None else bytes(found)


async def forget(connection: AsyncConnection, job_id: str, now: float) -> None:
    """now: when; the search index is then to be cleared of its words, by whoever looks after that."""
    gone = await connection.execute(delete(table).where(table.c.transcription_id == job_id))
    if gone.rowcount:
        await search_index.note_erased(connection, now)
