"""Work that comes round again, done by one process at a time: whose turn it is stands in the database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.ids import new_token
from voiceforge.infra.db.tables import chores as table


async def add(connection: AsyncConnection, name: str, now: float) -> None:
    """Known from now on, and due; nothing changes where it was known."""
    insert: Any = insert_sqlite if connection.dialect.name == "sqlite" else insert_postgresql
    await connection.execute(insert(table).values(name=name, due_at=now).on_conflict_do_nothing())


async def is_due(connection: AsyncConnection, name: str, now: float) -> bool:
    """Whether `claim` may succeed; costs no write."""
    found = await connection.execute(select(table.c.name).where(_takeable(name, now)))
    return found.first() is not None


async def claim(connection: AsyncConnection, name: str, *, now: float, lease_s: float) -> str | None:
    """A token for who does it now; None: it is not due, or another does it."""
    token = new_token()
    taken = await connection.execute(
        update(table).where(_takeable(name, now)).values(lease_token=token, lease_until=now + lease_s)
    )
    return token if taken.rowcount == 1 else None


async def done(connection: AsyncConnection, name: str, token: str, *, now: float, due_at: float) -> bool:
    """It is due again at `due_at`; False: another took it over meanwhile."""
    written = await connection.execute(
        update(table)
        .where(table.c.name == name, table.c.lease_token == token)
        .values(lease_token=None, lease_until=None, last_run_at=now, due_at=due_at)
    )
    return written.rowcount == 1


def _takeable(name: str, now: float) -> ColumnElement[bool]:
    return and_(
        table.c.name == name,
        table.c.due_at <= now,
        or_(table.c.lease_until.is_(None), table.c.lease_until <= now),
    )
