"""People. An e-mail address belongs to one of them, in whatever tenant."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.records_people import User
from voiceforge.infra.db.tables_access import tenants
from voiceforge.infra.db.tables_access import users as table


async def add(connection: AsyncConnection, user: User) -> bool:
    """False: the address has somebody already."""
    insert: Any = insert_sqlite if connection.dialect.name == "sqlite" else insert_postgresql
    added = await connection.execute(
        insert(table)
        .values(asdict(user))
        .on_conflict_do_nothing(index_elements=["email"])
        .returning(table.c.id)
    )
    return added.first() is not None


async def by_email(connection: AsyncConnection, email: str) -> User | None:
    """email: in lower case."""
    return _one(await connection.execute(select(table).where(table.c.email == email)))


async def with_id(connection: AsyncConnection, user_id: str) -> User | None:
    """In whatever tenant."""
    return _one(await connection.execute(select(table).where(table.c.id == user_id)))


async def get(connection: AsyncConnection, tenant: str, user_id: str) -> User | None:
    return _one(
        await connection.execute(select(table).where(table.c.id == user_id, table.c.tenant == tenant))
    )


async def lock(connection: AsyncConnection, user_id: str) -> User | None:
    """Nobody else changes it until the end of the transaction."""
    return _one(
        await connection.execute(select(table).where(table.c.id == user_id).with_for_update(key_share=True))
    )


async def newest(connection: AsyncConnection, tenant: str, *, before: str | None, limit: int) -> list[User]:
    """before: only those made before the one with this id."""
    query = select(table).where(table.c.tenant == tenant)
    if before is not None:
        query = query.where(table.c.id < before)
    rows = await connection.execute(query.order_by(table.c.id.desc()).limit(limit))
    return [_user_of(row) for row in rows]


async def lock_tenant(connection: AsyncConnection, tenant: str) -> None:
    """Who changes roles in a tenant does so alone, until the end of the transaction: two owners that step
    down at once would leave none."""
    await connection.execute(
        select(tenants.c.id).where(tenants.c.id == tenant).with_for_update(key_share=True)
    )


async def count_owners(connection: AsyncConnection, tenant: str) -> int:
    """That can come in."""
    query = (
        select(func.count())
        .select_from(table)
        .where(table.c.tenant == tenant, table.c.role == "owner", table.c.disabled_at.is_(None))
    )
    return int((await connection.execute(query)).scalar_one())


async def set_role(connection: AsyncConnection, user_id: str, role: str) -> None:
    await _set(connection, user_id, role=role)


async def set_password(connection: AsyncConnection, user_id: str, password_hash: str) -> None:
    await _set(connection, user_id, password_hash=password_hash)


async def set_disabled(connection: AsyncConnection, user_id: str, at: float | None) -> None:
    await _set(connection, user_id, disabled_at=at)


async def note_login(connection: AsyncConnection, user_id: str, at: float) -> None:
    await _set(connection, user_id, last_login_at=at)


async def remove(connection: AsyncConnection, user_id: str) -> None:
    """With their sessions, identities, tokens and keys."""
    await connection.execute(delete(table).where(table.c.id == user_id))


async def _set(connection: AsyncConnection, user_id: str, **columns: object) -> None:
    await connection.execute(update(table).where(table.c.id == user_id).values(columns))


def _user_of(row: Row[Any]) -> User:
    columns = row._mapping
    return User(**{name: columns[name] for name in User.__dataclass_fields__})


def _one(rows: Any) -> User | None:
    row = rows.first()
    return None if row is None else _user_of(row)
