"""API keys: what is known of each, and who comes in with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, func, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.tables_access import api_keys as table
from voiceforge.infra.db.tables_access import tenants, users


@dataclass(frozen=True, slots=True)
class ApiKey:
    """user_id: None: the tenant's own. role, scopes: by name. models, addresses: None: all. tier: None: that
    of the tenant. hint: its first characters. Times are Unix seconds."""

    id: str
    tenant: str
    user_id: str | None
    role: str
    name: str
    hint: str
    scopes: tuple[str, ...]
    models: tuple[str, ...] | None
    addresses: tuple[str, ...] | None
    tier: str | None
    created_at: float
    expires_at: float | None = None
    last_used_at: float | None = None
    revoked_at: float | None = None
    replaced_by: str | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose key it is. key: None where somebody was looked for by name. role: of the user, None where it is
    nobody's own. in_force: neither the tenant nor the user is shut out."""

    key: ApiKey | None
    tenant: str
    user_id: str | None
    role: str | None
    tier: str
    in_force: bool


async def add(connection: AsyncConnection, key: ApiKey, hashed: str) -> None:
    await connection.execute(insert(table).values(**_columns(key), hash=hashed))


async def get(connection: AsyncConnection, tenant: str, key_id: str, *, lock: bool = False) -> ApiKey | None:
    """lock: nobody else changes it until the end of the transaction."""
    query = select(table).where(table.c.id == key_id, table.c.tenant == tenant)
    row = (await connection.execute(query.with_for_update() if lock else query)).first()
    return None if row is None else _key(row._mapping)


async def newest(connection: AsyncConnection, tenant: str, *, before: str | None, limit: int) -> list[ApiKey]:
    """before: only those made before the one with this id."""
    query = select(table).where(table.c.tenant == tenant)
    if before is not None:
        query = query.where(table.c.id < before)
    rows = await connection.execute(query.order_by(table.c.id.desc()).limit(limit))
    return [_key(row._mapping) for row in rows]


async def count_usable(connection: AsyncConnection, tenant: str, now: float) -> int:
    """Those that are neither revoked nor expired."""
    query = select(func.count()).select_from(table).where(table.c.tenant == tenant, _usable(now))
    return int((await connection.execute(query)).scalar_one())


async def count_owners(connection: AsyncConnection, tenant: str, now: float) -> int:
    """The tenant's own keys of that role, likewise."""
    query = (
        select(func.count())
        .select_from(table)
        .where(table.c.tenant == tenant, table.c.role == "owner", table.c.user_id.is_(None), _usable(now))
    )
    return int((await connection.execute(query)).scalar_one())


async def lock_tenant(connection: AsyncConnection, tenant: str) -> bool:
    """Whoever asks for the same waits until the end of the transaction. False: there is none."""
    query = select(tenants.c.id).where(tenants.c.id == tenant).with_for_update()
    return (await connection.execute(query)).first() is not None


async def change(connection: AsyncConnection, changed: ApiKey) -> None:
    """The row becomes what `changed` says, but for what nothing changes."""
    columns = _columns(changed)
    for fixed in ("id", "tenant", "user_id", "hint", "created_at", "last_used_at"):
        del columns[fixed]
    await connection.execute(update(table).where(table.c.id == changed.id).values(columns))


async def mark_used(connection: AsyncConnection, key_id: str, at: float) -> None:
    """Never to an earlier time."""
    earlier = table.c.last_used_at.is_(None) | (table.c.last_used_at < at)
    await connection.execute(update(table).where(table.c.id == key_id, earlier).values(last_used_at=at))


async def holder_by_hash(connection: AsyncConnection, hashed: str) -> Holder | None:
    return await _holder(connection, _of_keys().where(table.c.hash == hashed))


async def holder_by_id(connection: AsyncConnection, key_id: str) -> Holder | None:
    return await _holder(connection, _of_keys().where(table.c.id == key_id))


async def holder_by_user(connection: AsyncConnection, user_id: str) -> Holder | None:
    """Somebody without any key."""
    query = (
        select(users.c.tenant, users.c.role, users.c.disabled_at, tenants.c.tier, tenants.c.disabled_at)
        .join(tenants, tenants.c.id == users.c.tenant)
        .where(users.c.id == user_id)
    )
    row = (await connection.execute(query)).first()
    if row is None:
        return None
    tenant, role, user_disabled_at, tier, tenant_disabled_at = row
    in_force = user_disabled_at is None and tenant_disabled_at is None
    return Holder(None, tenant, user_id, role, tier, in_force)


def _usable(now: float) -> ColumnElement[bool]:
    return table.c.revoked_at.is_(None) & (table.c.expires_at.is_(None) | (table.c.expires_at > now))


def _of_keys() -> Select[Any]:
    return (
        select(
            table,
            tenants.c.tier.label("tenant_tier"),
            tenants.c.disabled_at.label("tenant_disabled_at"),
            users.c.role.label("user_role"),
            users.c.disabled_at.label("user_disabled_at"),
        )
        .join(tenants, tenants.c.id == table.c.tenant)
        .outerjoin(users, users.c.id == table.c.user_id)
    )


async def _holder(connection: AsyncConnection, query: Select[Any]) -> Holder | None:
    row: Row[Any] | None = (await connection.execute(query)).first()
    if row is None:
        return None
    columns = row._mapping
    return Holder(
        key=_key(columns),
        tenant=columns["tenant"],
        user_id=columns["user_id"],
        role=columns["user_role"],
        tier=columns["tenant_tier"],
        in_force=columns["tenant_disabled_at"] is None and columns["user_disabled_at"] is None,
    )


def _columns(key: ApiKey) -> dict[str, Any]:
    columns = asdict(key)
    for name in ("scopes", "models", "addresses"):
        columns[name] = None if columns[name] is None else list(columns[name])
    return columns


def _key(columns: Mapping[Any, Any]) -> ApiKey:
    values = {name: columns[name] for name in ApiKey.__dataclass_fields__}
    for name in ("scopes", "models", "addresses"):
        values[name] = None if values[name] is None else tuple(values[name])
    return ApiKey(**values)
