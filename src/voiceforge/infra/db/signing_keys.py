"""The keys that sign tokens. They are the server's: no tenant has its own."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.records_people import SigningKey
from voiceforge.infra.db.tables_access import signing_keys as table

_OWNER = "default"


async def add(connection: AsyncConnection, key: SigningKey) -> None:
    columns = {name: getattr(key, name) for name in SigningKey.__dataclass_fields__}
    await connection.execute(insert(table).values(columns | {"public": dict(key.public), "tenant": _OWNER}))


async def believed(connection: AsyncConnection, now: float) -> list[SigningKey]:
    """Those whose tokens count, the newest first."""
    rows = await connection.execute(
        select(table)
        .where(or_(table.c.believed_until.is_(None), table.c.believed_until > now))
        .order_by(table.c.created_at.desc(), table.c.id.desc())
    )
    return [_key_of(row) for row in rows]


async def retire(connection: AsyncConnection, but: str, until: float) -> None:
    """All but this one sign no more, and are believed until then."""
    await connection.execute(
        update(table)
        .where(table.c.id != but, or_(table.c.believed_until.is_(None), table.c.believed_until > until))
        .values(believed_until=until)
    )


async def forget_old(connection: AsyncConnection, before: float) -> int:
    """Those that nobody believes since then; how many."""
    return (await connection.execute(delete(table).where(table.c.believed_until < before))).rowcount


def _key_of(row: Row[Any]) -> SigningKey:
    columns = row._mapping
    return SigningKey(**{name: columns[name] for name in SigningKey.__dataclass_fields__})
