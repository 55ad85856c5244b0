"""Audio that is kept, once for each content and tenant."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.records import Recording
from voiceforge.infra.db.tables import recordings as table
from voiceforge.infra.db.tables import transcriptions

_STORED, _ERASING = "stored", "erasing"


async def add(connection: AsyncConnection, recording: Recording) -> None:
    await connection.execute(
        insert(table).values(
            id=recording.id,
            tenant=recording.tenant,
            sha256=recording.sha256,
            size_bytes=recording.size_bytes,
            blob_key=recording.blob_key,
            created_at=recording.created_at,
            state=_STORED,
        )
    )


async def with_content(connection: AsyncConnection, tenant: str, sha256: str) -> Recording | None:
    """One that holds the same bytes; it stays until the end of the transaction."""
    rows = await connection.execute(
        select(table)
        .where(table.c.tenant == tenant, table.c.sha256 == sha256, table.c.state == _STORED)
        .order_by(table.c.id)
        .limit(1)
        .with_for_update()
    )
    row = rows.first()
    return None if row is None else _recording(row._mapping)


async def get(connection: AsyncConnection, tenant: str, recording_id: str) -> Recording | None:
    rows = await connection.execute(
        select(table).where(table.c.id == recording_id, table.c.tenant == tenant, table.c.state == _STORED)
    )
    row = rows.first()
    return None if row is None else _recording(row._mapping)


async def lock(connection: AsyncConnection, recording_id: str) -> None:
    """Nobody comes to refer to it until the end of the transaction."""
    await connection.execute(select(table.c.id).where(table.c.id == recording_id).with_for_update())


async def begin_erasing(connection: AsyncConnection, recording_id: str) -> None:
    await connection.execute(update(table).where(table.c.id == recording_id).values(state=_ERASING))


async def known_keys(connection: AsyncConnection, ids: Sequence[str]) -> set[str]:
    """Those of these recordings that are here, in whatever state, by the keys of their blobs."""
    rows = await connection.execute(select(table.c.blob_key).where(table.c.id.in_(ids)))
    return set(rows.scalars())


async def unused(
    connection: AsyncConnection, *, after: str, before: float, limit: int
) -> tuple[list[str], str | None]:
    """Of the `limit` recordings after the one with id `after` that were made before `before`, those that no
    transcription refers to; and the id of the last one looked at, None at the end."""
    window = (
        select(table.c.id)
        .where(table.c.id > after, table.c.created_at < before, table.c.state == _STORED)
        .order_by(table.c.id)
        .limit(limit)
    )
    looked_at = list((await connection.execute(window)).scalars())
    if not looked_at:
        return [], None
    used = select(transcriptions.c.id).where(transcriptions.c.recording_id == table.c.id)
    rows = await connection.execute(select(table.c.id).where(table.c.id.in_(looked_at), ~used.exists()))
    return list(rows.scalars()), looked_at[-1]


async def being_erased(connection: AsyncConnection, limit: int) -> list[Recording]:
    """Those whose blobs are still to be removed."""
    rows = await connection.execute(
        select(table).where(table.c.state == _ERASING).order_by(table.c.id).limit(limit)
    )
    return [_recording(row._mapping) for row in rows]


async def forget(connection: AsyncConnection, recording_id: str) -> None:
    await connection.execute(delete(table).where(table.c.id == recording_id, table.c.state == _ERASING))


def _recording(columns: object) -> Recording:
    return Recording(**{name: columns[name] for name in Recording.__dataclass_fields__})  # type: ignore[index]
