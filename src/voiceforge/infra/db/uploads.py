"""Uploads that come in pieces: how long they are to be, and how much of that is safely here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.records import Upload
from voiceforge.infra.db.tables import uploads as table


async def add(connection: AsyncConnection, upload: Upload) -> None:
    await connection.execute(
        insert(table).values({name: getattr(upload, name) for name in Upload.__dataclass_fields__})
    )


async def get(connection: AsyncConnection, tenant: str, upload_id: str) -> Upload | None:
    return _one(
        await connection.execute(select(table).where(table.c.id == upload_id, table.c.tenant == tenant))
    )


async def take_turn(connection: AsyncConnection, upload_id: str, writer: str) -> None:
    """From now on this writer's turn counts, and no other's."""
    await connection.execute(update(table).where(table.c.id == upload_id).values(writer=writer))


async def has_turn(connection: AsyncConnection, upload_id: str, writer: str) -> bool:
    found = await connection.execute(
        select(table.c.id).where(table.c.id == upload_id, table.c.writer == writer)
    )
    return found.first() is not None


async def end_turn(connection: AsyncConnection, upload_id: str, writer: str) -> None:
    await connection.execute(
        update(table).where(table.c.id == upload_id, table.c.writer == writer).values(writer=None)
    )


async def advance(connection: AsyncConnection, upload_id: str, offset_bytes: int) -> bool:
    """So much of it is here, for good; False: it was removed meanwhile. Only for who holds its file."""
    done = await connection.execute(
        update(table).where(table.c.id == upload_id).values(offset_bytes=offset_bytes)
    )
    return done.rowcount == 1


async def note_digest(connection: AsyncConnection, upload_id: str, sha256: str) -> None:
    await connection.execute(update(table).where(table.c.id == upload_id).values(sha256=sha256))


async def expire_by(connection: AsyncConnection, upload_id: str, at: float) -> None:
    """At this time, unless that is before."""
    await connection.execute(
        update(table).where(table.c.id == upload_id, table.c.expires_at > at).values(expires_at=at)
    )


async def expired(connection: AsyncConnection, now: float, limit: int) -> list[str]:
    rows = await connection.execute(
        select(table.c.id).where(table.c.expires_at <= now).order_by(table.c.expires_at).limit(limit)
    )
    return list(rows.scalars())


async def known(connection: AsyncConnection, ids: Sequence[str]) -> set[str]:
    rows = await connection.execute(select(table.c.id).where(table.c.id.in_(ids)))
    return set(rows.scalars())


async def forget(connection: AsyncConnection, upload_id: str) -> None:
    await connection.execute(delete(table).where(table.c.id == upload_id))


def _one(rows: Any) -> Upload | None:
    row = rows.first()
    if row is None:
        return None
    return Upload(**{name: row._mapping[name] for name in Upload.__dataclass_fields__})
