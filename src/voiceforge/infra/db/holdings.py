"""What a tenant has here: jobs that are not over, and recordings."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.records import JobStatus
from voiceforge.infra.db.tables import recordings, transcriptions
from voiceforge.infra.db.tables_access import tenants


async def hold(connection: AsyncConnection, tenant: str) -> None:
    """Until the end of the transaction nobody else who holds the tenant goes on: what is counted stays so."""
    await connection.execute(select(tenants.c.id).where(tenants.c.id == tenant).with_for_update())


async def open_jobs(connection: AsyncConnection, tenant: str, key_id: str | None = None) -> int:
    """Those that wait or are worked on. key_id: only those that came with it."""
    query = (
        select(func.count())
        .select_from(transcriptions)
        .where(
            transcriptions.c.tenant == tenant,
            transcriptions.c.status.in_([JobStatus.QUEUED, JobStatus.RUNNING]),
        )
    )
    if key_id is not None:
        query = query.where(transcriptions.c.key_id == key_id)
    return int((await connection.execute(query)).scalar_one())


async def stored_bytes(connection: AsyncConnection, tenant: str) -> int:
    """Of recordings; each counts once."""
    query = select(func.coalesce(func.sum(recordings.c.size_bytes), 0)).where(recordings.c.tenant == tenant)
    return int((await connection.execute(query)).scalar_one())
