"""Where events are sent, and the secrets that sign them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.records import Webhook, WebhookSecret
from voiceforge.infra.db.tables import webhooks as table


async def add(connection: AsyncConnection, new: Webhook) -> None:
    await connection.execute(insert(table).values(_columns(new)))


async def add_signer(connection: AsyncConnection, new: Webhook) -> Webhook:
    """That which signs the callbacks of a tenant: the new one, or the one that it has already."""
    either: Any = insert_sqlite if connection.dialect.name == "sqlite" else insert_postgresql
    await connection.execute(either(table).values(_columns(new)).on_conflict_do_nothing())
    found = await signer(connection, new.tenant)
    assert found is not None
    return found


async def get(
    connection: AsyncConnection, tenant: str, webhook_id: str, *, lock: bool = False
) -> Webhook | None:
    """lock: nobody else changes it until the end of the transaction."""
    query = select(table).where(table.c.id == webhook_id, table.c.tenant == tenant, table.c.url.is_not(None))
    return _one(await connection.execute(query.with_for_update() if lock else query))


async def signer(connection: AsyncConnection, tenant: str, *, lock: bool = False) -> Webhook | None:
    """The one that signs the callbacks of a tenant."""
    query = select(table).where(table.c.tenant == tenant, table.c.url.is_(None))
    return _one(await connection.execute(query.with_for_update() if lock else query))


async def listening(connection: AsyncConnection, tenant: str, kind: str) -> list[Webhook]:
    """Those that are told of this kind of event, the tenant's signer of callbacks whatever it says; none of
    them can go before the end of the transaction."""
    # Postgres would else let one go between here and the delivery that refers to it.
    rows = await connection.execute(
        select(table).where(table.c.tenant == tenant).with_for_update(read=True, key_share=True)
    )
    found = [webhook_of(row) for row in rows]
    return [one for one in found if one.url is None or (one.enabled and kind in one.event_types)]


async def newest(
    connection: AsyncConnection, tenant: str, *, before: str | None, limit: int
) -> list[Webhook]:
    """Without the signer of callbacks. before: only those made before the one with this id."""
    query = select(table).where(table.c.tenant == tenant, table.c.url.is_not(None))
    if before is not None:
        query = query.where(table.c.id < before)
    rows = await connection.execute(query.order_by(table.c.id.desc()).limit(limit))
    return [webhook_of(row) for row in rows]


async def count(connection: AsyncConnection, tenant: str) -> int:
    query = select(func.count()).select_from(table).where(table.c.tenant == tenant)
    return int((await connection.execute(query)).scalar_one())


async def change(connection: AsyncConnection, changed: Webhook) -> None:
    """The row becomes what `changed` says."""
    columns = _columns(changed)
    del columns["id"], columns["tenant"], columns["created_at"]
    await connection.execute(update(table).where(table.c.id == changed.id).values(columns))


async def disable(connection: AsyncConnection, webhook_id: str) -> None:
    await connection.execute(update(table).where(table.c.id == webhook_id).values(enabled=False))


async def forget(connection: AsyncConnection, webhook_id: str) -> None:
    """The row and its deliveries."""
    await connection.execute(delete(table).where(table.c.id == webhook_id))


def webhook_of(row: Row[Any]) -> Webhook:
    columns = row._mapping
    return Webhook(
        id=columns["id"],
        tenant=columns["tenant"],
        url=columns["url"],
        event_types=tuple(columns["event_types"]),
        secrets=_secrets(columns["secrets"]),
        enabled=columns["enabled"],
        created_at=columns["created_at"],
    )


def _secrets(stored: Iterable[dict[str, Any]]) -> tuple[WebhookSecret, ...]:
    return tuple(WebhookSecret(**one) for one in stored)


def _columns(webhook: Webhook) -> dict[str, Any]:
    return asdict(webhook) | {
        "event_types": list(webhook.event_types),
        "secrets": [asdict(secret) for secret in webhook.secrets],
    }


def _one(rows: Any) -> Webhook | None:
    row = rows.first()
    return None if row is None else webhook_of(row)
