"""Events on their way to receivers. One is taken to be sent for a while, by a token; what is not told of by
then is taken again, so that none is lost with the process that sends it. Its own `available_at` is the lease.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from sqlalchemy import Select, delete, func, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db import events
from voiceforge.infra.db.ids import first_id, new_id, new_token
from voiceforge.infra.db.records import (
    Delivery,
    DeliveryAttempt,
    DeliveryClaim,
    DeliveryStatus,
    Event,
    Webhook,
)
from voiceforge.infra.db.tables import deliveries as table
from voiceforge.infra.db.tables import events as event_table
from voiceforge.infra.db.tables import webhooks as webhook_table
from voiceforge.infra.db.webhooks import webhook_of

_MOST_LOGGED = 100
INTERRUPTED = "interrupted"
"""The error of an attempt whose process ended before it could tell more."""


async def add(connection: AsyncConnection, webhook: Webhook, event: Event, url: str, host: str) -> str:
    """Its id; due at once."""
    delivery_id = new_id("dlv", event.created_at)
    await connection.execute(
        insert(table).values(
            id=delivery_id,
            tenant=webhook.tenant,
            webhook_id=webhook.id,
            event_id=event.id,
            url=url,
            host=host,
            status=DeliveryStatus.WAITING,
            attempts=0,
            available_at=event.created_at,
            log=[],
            created_at=event.created_at,
        )
    )
    return delivery_id


async def claim_next(
    connection: AsyncConnection, *, worker: str, now: float, lease_s: float, but_not: Collection[str] = ()
) -> DeliveryClaim | None:
    """What is due for longest. None: nothing is. but_not: hosts that have enough to do."""
    query = _due(now, but_not).limit(1)
    return await _claim(connection, query, worker=worker, now=now, lease_s=lease_s)


async def claim(
    connection: AsyncConnection, delivery_id: str, *, worker: str, now: float, lease_s: float
) -> DeliveryClaim | None:
    """This one. None: it is not due."""
    query = select(table).where(
        table.c.id == delivery_id, table.c.status == DeliveryStatus.WAITING, table.c.available_at <= now
    )
    return await _claim(connection, query, worker=worker, now=now, lease_s=lease_s)


async def _claim(
    connection: AsyncConnection, query: Select[Any], *, worker: str, now: float, lease_s: float
) -> DeliveryClaim | None:
    row = (await connection.execute(query.with_for_update(skip_locked=True))).first()
    if row is None:
        return None
    log = list(row.log)
    if row.lease_token is not None:
        log.append(asdict(DeliveryAttempt(row.available_at, None, INTERRUPTED, None)))
    token, until = new_token(), now + lease_s
    await connection.execute(
        update(table)
        .where(table.c.id == row.id)
        .values(
            attempts=table.c.attempts + 1,
            available_at=until,
            lease_token=token,
            worker=worker,
            log=log[-_MOST_LOGGED:],
        )
    )
    taken = (await connection.execute(_whole().where(table.c.id == row.id))).one()
    webhook = (
        await connection.execute(select(webhook_table).where(webhook_table.c.id == taken.webhook_id))
    ).one()
    event = await events.get(connection, taken.event_id)
    assert event is not None  # the delivery refers to it
    return DeliveryClaim(_delivery(taken), event, webhook_of(webhook), token, until)


async def end(
    connection: AsyncConnection,
    claim: DeliveryClaim,
    status: DeliveryStatus,
    attempt: DeliveryAttempt,
    now: float,
) -> bool:
    """It is over; False: it is not ours any more, and nothing was written."""
    return await _write(
        connection, claim, attempt, {"status": status, "finished_at": now, "available_at": now}
    )


async def put_off(
    connection: AsyncConnection, claim: DeliveryClaim, attempt: DeliveryAttempt, available_at: float
) -> bool:
    """It shall be tried again then."""
    return await _write(connection, claim, attempt, {"available_at": available_at})


async def give_back(connection: AsyncConnection, claim: DeliveryClaim, now: float) -> bool:
    """It was not tried, and is due for whomever."""
    values = {"available_at": now, "attempts": table.c.attempts - 1}
    return await _write(connection, claim, None, values)


async def sending(connection: AsyncConnection, limit: int) -> list[tuple[str, str | None]]:
    """Ids of those that are being sent, as it seems, with who does it."""
    rows = await connection.execute(
        select(table.c.id, table.c.worker).where(table.c.lease_token.is_not(None)).limit(limit)
    )
    return [(row.id, row.worker) for row in rows]


async def make_due(connection: AsyncConnection, delivery_id: str, worker: str, now: float) -> bool:
    """Whoever was to send it is dead; False: it is another's by now."""
    done = await connection.execute(
        update(table)
        .where(table.c.id == delivery_id, table.c.worker == worker, table.c.status == DeliveryStatus.WAITING)
        .values(available_at=now, worker=None)
    )
    return done.rowcount == 1


async def due(
    connection: AsyncConnection, now: float, limit: int, *, but_not: Collection[str] = ()
) -> list[str]:
    """Ids of those that could be taken now, first those due for longest. but_not: see `claim_next`."""
    rows = await connection.execute(_due(now, but_not).with_only_columns(table.c.id).limit(limit))
    return [row.id for row in rows]


async def count_waiting(connection: AsyncConnection) -> int:
    query = select(func.count()).select_from(table).where(table.c.status == DeliveryStatus.WAITING)
    return int((await connection.execute(query)).scalar_one())


async def get(
    connection: AsyncConnection, tenant: str, webhook_id: str, delivery_id: str, *, lock: bool = False
) -> Delivery | None:
    """lock: nobody else changes it until the end of the transaction."""
    query = _whole().where(
        table.c.id == delivery_id, table.c.webhook_id == webhook_id, table.c.tenant == tenant
    )
    row = (await connection.execute(query.with_for_update(of=table) if lock else query)).first()
    return None if row is None else _delivery(row)


async def newest(
    connection: AsyncConnection,
    tenant: str,
    webhook_id: str,
    *,
    status: DeliveryStatus | None,
    before: str | None,
    limit: int,
) -> list[Delivery]:
    """before: only those made before the one with this id."""
    query = _whole().where(table.c.tenant == tenant, table.c.webhook_id == webhook_id)
    if status is not None:
        query = query.where(table.c.status == status)
    if before is not None:
        query = query.where(table.c.id < before)
    rows = await connection.execute(query.order_by(table.c.id.desc()).limit(limit))
    return [_delivery(row) for row in rows]


async def send_anew(connection: AsyncConnection, delivery_id: str, url: str, host: str, now: float) -> None:
    """As if it had never been tried; its log stays."""
    await connection.execute(
        update(table)
        .where(table.c.id == delivery_id)
        .values(
            url=url,
            host=host,
            status=DeliveryStatus.WAITING,
            attempts=0,
            available_at=now,
            finished_at=None,
            lease_token=None,
            worker=None,
        )
    )


async def move(connection: AsyncConnection, webhook_id: str, url: str, host: str) -> None:
    """What waits goes elsewhere."""
    await connection.execute(
        update(table)
        .where(table.c.webhook_id == webhook_id, table.c.status == DeliveryStatus.WAITING)
        .values(url=url, host=host)
    )


async def forget_over(connection: AsyncConnection, before: float, limit: int) -> int:
    """Some that were over before then, and test events that no other delivery is of; how many deliveries."""
    rows = await connection.execute(
        select(table.c.id, table.c.event_id)
        .where(
            table.c.id < first_id("dlv", before),
            table.c.status != DeliveryStatus.WAITING,
            table.c.finished_at < before,
        )
        .order_by(table.c.id)
        .limit(limit)
    )
    gone = rows.all()
    if gone:
        await connection.execute(delete(table).where(table.c.id.in_([row.id for row in gone])))
        others = select(table.c.id).where(table.c.event_id == event_table.c.id)
        await connection.execute(
            delete(event_table).where(
                event_table.c.id.in_({row.event_id for row in gone}),
                event_table.c.transcription_id.is_(None),
                event_table.c.batch_id.is_(None),
                ~others.exists(),
            )
        )
    return len(gone)


async def _write(
    connection: AsyncConnection, claim: DeliveryClaim, attempt: DeliveryAttempt | None, values: dict[str, Any]
) -> bool:
    log = [asdict(one) for one in (*claim.delivery.log, *([attempt] if attempt else []))]
    done = await connection.execute(
        update(table)
        .where(table.c.id == claim.delivery.id, table.c.lease_token == claim.token)
        .values(values | {"log": log[-_MOST_LOGGED:], "lease_token": None, "worker": None})
    )
    return done.rowcount == 1


def _due(now: float, but_not: Collection[str]) -> Select[Any]:
    query = select(table).where(table.c.status == DeliveryStatus.WAITING, table.c.available_at <= now)
    if but_not:
        query = query.where(table.c.host.not_in(but_not))
    return query.order_by(table.c.available_at)


def _whole() -> Select[Any]:
    return select(table, event_table.c.type.label("event_type")).join(
        event_table, event_table.c.id == table.c.event_id
    )


def _delivery(row: Row[Any]) -> Delivery:
    columns = row._mapping
    return Delivery(
        **{name: columns[name] for name in _PLAIN},
        status=DeliveryStatus(columns["status"]),
        is_sending=columns["lease_token"] is not None,
        log=tuple(DeliveryAttempt(**one) for one in columns["log"]),
    )


_MADE = frozenset({"status", "is_sending", "log"})
_PLAIN = tuple(name for name in Delivery.__dataclass_fields__ if name not in _MADE)
