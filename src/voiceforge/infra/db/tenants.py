"""Whose everything is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.tables_access import tenants as table


@dataclass(frozen=True, slots=True)
class Tenant:
    """tier: the name of the limits that apply to it."""

    id: str
    name: str
    tier: str
    created_at: float
    disabled_at: float | None = None


async def add(connection: AsyncConnection, tenant: Tenant) -> None:
    await connection.execute(insert(table).values(asdict(tenant)))


async def get(connection: AsyncConnection, tenant_id: str) -> Tenant | None:
    row = (await connection.execute(select(table).where(table.c.id == tenant_id))).first()
    return None if row is None else _tenant_of(row)


async def listed(connection: AsyncConnection, *, before: str | None, limit: int) -> list[Tenant]:
    """By their ids, the last first: those that were made here, the newest first."""
    query = select(table)
    if before is not None:
        query = query.where(table.c.id < before)
    rows = await connection.execute(query.order_by(table.c.id.desc()).limit(limit))
    return [_tenant_of(row) for row in rows]


async def change(connection: AsyncConnection, changed: Tenant) -> None:
    """The row becomes what `changed` says."""
    columns = asdict(changed)
    del columns["id"], columns["created_at"]
    await connection.execute(update(table).where(table.c.id == changed.id).values(columns))


def _tenant_of(row: Row[Any]) -> Tenant:
    columns = row._mapping
    return Tenant(**{name: columns[name] for name in Tenant.__dataclass_fields__})
