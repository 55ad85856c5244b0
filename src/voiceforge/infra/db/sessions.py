"""Who is logged in: sessions, and what they are worth now."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.records_people import Session, Standing
from voiceforge.infra.db.tables_access import sessions as table
from voiceforge.infra.db.tables_access import tenants, users


async def add(connection: AsyncConnection, session: Session) -> None:
    await connection.execute(insert(table).values(asdict(session)))


async def lock(connection: AsyncConnection, session_id: str) -> Session | None:
    """Nobody else changes it until the end of the transaction."""
    found = await connection.execute(select(table).where(table.c.id == session_id).with_for_update())
    row = found.first()
    return None if row is None else _session_of(row)


async def renew(connection: AsyncConnection, session_id: str, refresh_hash: str, now: float) -> None:
    await connection.execute(
        update(table).where(table.c.id == session_id).values(refresh_hash=refresh_hash, refreshed_at=now)
    )


async def end(connection: AsyncConnection, session_id: str, now: float) -> bool:
    """False: it had ended."""
    ended = await connection.execute(
        update(table).where(table.c.id == session_id, table.c.revoked_at.is_(None)).values(revoked_at=now)
    )
    return ended.rowcount == 1


async def end_all(connection: AsyncConnection, user_id: str, now: float, *, but: str | None = None) -> int:
    """Of a person; how many there were. but: the id of one that goes on."""
    query = update(table).where(table.c.user_id == user_id, table.c.revoked_at.is_(None))
    if but is not None:
        query = query.where(table.c.id != but)
    return (await connection.execute(query.values(revoked_at=now))).rowcount


async def standing(connection: AsyncConnection, session_id: str) -> Standing | None:
    """None: there is no such session any more."""
    query = (
        select(
            users.c.id.label("user_id"),
            users.c.tenant,
            users.c.role,
            tenants.c.tier,
            table.c.expires_at,
            table.c.revoked_at,
            users.c.disabled_at.label("user_disabled_at"),
            tenants.c.disabled_at.label("tenant_disabled_at"),
        )
        .join(users, users.c.id == table.c.user_id)
        .join(tenants, tenants.c.id == users.c.tenant)
        .where(table.c.id == session_id)
    )
    row = (await connection.execute(query)).first()
    if row is None:
        return None
    return Standing(
        user_id=row.user_id,
        tenant=row.tenant,
        role=row.role,
        tier=row.tier,
        expires_at=row.expires_at,
        ended=row.revoked_at is not None,
        disabled=row.user_disabled_at is not None or row.tenant_disabled_at is not None,
    )


async def forget_old(connection: AsyncConnection, before: float) -> int:
    """Those that ended or ran out before; how many."""
    gone = await connection.execute(
        delete(table).where(or_(table.c.expires_at < before, table.c.revoked_at < before))
    )
    return gone.rowcount


def _session_of(row: Row[Any]) -> Session:
    columns = row._mapping
    return Session(**{name: columns[name] for name in Session.__dataclass_fields__})
