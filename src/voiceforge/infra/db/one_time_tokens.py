"""Tokens that are good for one thing, once: a registration, a new password, an invitation."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.records_people import OneTimeToken, Purpose
from voiceforge.infra.db.tables_access import one_time_tokens as table


async def add(connection: AsyncConnection, token: OneTimeToken) -> None:
    await connection.execute(
        insert(table).values(asdict(token) | {"purpose": token.purpose.value, "data": dict(token.data)})
    )


async def use(
    connection: AsyncConnection, token_hash: str, purpose: Purpose, now: float
) -> OneTimeToken | None:
    """What it is good for, and from now on no more; None: nothing, any more. Of two who come at once one
    gets it."""
    used = await connection.execute(
        update(table)
        .where(
            table.c.hash == token_hash,
            table.c.purpose == purpose.value,
            table.c.used_at.is_(None),
            table.c.expires_at > now,
        )
        .values(used_at=now)
        .returning(*table.c)
    )
    row = used.first()
    return None if row is None else _token_of(row)


async def waiting(
    connection: AsyncConnection, purpose: Purpose, now: float, *, tenant: str | None = None
) -> list[OneTimeToken]:
    """Those that can still be used, the newest first."""
    query = select(table).where(
        table.c.purpose == purpose.value, table.c.used_at.is_(None), table.c.expires_at > now
    )
    if tenant is not None:
        query = query.where(table.c.tenant == tenant)
    rows = await connection.execute(query.order_by(table.c.created_at.desc()))
    return [_token_of(row) for row in rows]


async def void(connection: AsyncConnection, user_id: str, purpose: Purpose) -> None:
    """What a person had of these is good for nothing any more."""
    await connection.execute(
        delete(table).where(table.c.user_id == user_id, table.c.purpose == purpose.value)
    )


async def forget(connection: AsyncConnection, token_hash: str) -> bool:
    """False: there was none."""
    return (await connection.execute(delete(table).where(table.c.hash == token_hash))).rowcount == 1


async def forget_old(connection: AsyncConnection, before: float) -> int:
    """Those that ran out before; how many."""
    return (await connection.execute(delete(table).where(table.c.expires_at < before))).rowcount


def _token_of(row: Row[Any]) -> OneTimeToken:
    columns = row._mapping
    values = {name: columns[name] for name in OneTimeToken.__dataclass_fields__}
    return OneTimeToken(**values | {"purpose": Purpose(values["purpose"])})
