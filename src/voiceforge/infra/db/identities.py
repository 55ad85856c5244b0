"""Who somebody is at a provider of single sign-on."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.records_people import User
from voiceforge.infra.db.tables_access import identities as table


async def add(connection: AsyncConnection, issuer: str, subject: str, user: User, now: float) -> None:
    """From now on that is this person; nothing changes where it is somebody."""
    insert: Any = insert_sqlite if connection.dialect.name == "sqlite" else insert_postgresql
    await connection.execute(
        insert(table)
        .values(issuer=issuer, subject=subject, tenant=user.tenant, user_id=user.id, created_at=now)
        .on_conflict_do_nothing()
    )


async def user_id(connection: AsyncConnection, issuer: str, subject: str) -> str | None:
    found = await connection.execute(
        select(table.c.user_id).where(table.c.issuer == issuer, table.c.subject == subject)
    )
    return found.scalar_one_or_none()
