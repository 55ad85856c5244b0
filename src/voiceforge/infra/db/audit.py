"""The audit log: entries that are only ever added, and where the chain of each tenant begins and ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Select, delete, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.tables_access import audit as table
from voiceforge.infra.db.tables_access import audit_chains as chains


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """number: of the tenant's entries, from 1. at: Unix seconds, whole milliseconds. hash: hexadecimal."""

    tenant: str
    number: int
    at: float
    actor_kind: str
    actor_id: str | None
    address: str | None
    request_id: str | None
    action: str
    target: str | None
    details: Mapping[str, Any]
    hash: str


@dataclass(frozen=True, slots=True)
class AuditChain:
    """Of one tenant.

    number, hash: of its newest entry. cut_number, cut_hash: of the last one that was cut off at the
    beginning. Number 0: there was none.
    """

    tenant: str
    number: int
    hash: str
    cut_number: int
    cut_hash: str


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What is None does not matter. actions: by name, or by what they begin with where that ends in a dot.
    since, until: Unix seconds, the second not among them."""

    actions: Sequence[str] = ()
    actor_id: str | None = None
    target: str | None = None
    since: float | None = None
    until: float | None = None


async def lock_chain(connection: AsyncConnection, tenant: str, first_hash: str) -> AuditChain:
    """Nobody else adds to it until the end of the transaction. It is made where there is none.

    Args:
        first_hash: what stands before the first entry of all.
    """
    query = select(chains).where(chains.c.tenant == tenant).with_for_update()
    row = (await connection.execute(query)).first()
    if row is None:
        insert_: Any = insert_sqlite if connection.dialect.name == "sqlite" else insert_postgresql
        empty = AuditChain(tenant, 0, first_hash, 0, first_hash)
        await connection.execute(insert_(chains).values(asdict(empty)).on_conflict_do_nothing())
        row = (await connection.execute(query)).one()
    return AuditChain(**row._mapping)


async def add(connection: AsyncConnection, entry: AuditEntry) -> None:
    """Behind the newest one, by who has locked the chain."""
    await connection.execute(insert(table).values(asdict(entry)))
    await connection.execute(
        update(chains).where(chains.c.tenant == entry.tenant).values(number=entry.number, hash=entry.hash)
    )


async def chain_of(connection: AsyncConnection, tenant: str) -> AuditChain | None:
    row = (await connection.execute(select(chains).where(chains.c.tenant == tenant))).first()
    return None if row is None else AuditChain(**row._mapping)


async def all_chains(connection: AsyncConnection) -> list[AuditChain]:
    rows = await connection.execute(select(chains).order_by(chains.c.tenant))
    return [AuditChain(**row._mapping) for row in rows]


async def newest(
    connection: AsyncConnection, tenant: str, wanted: AuditFilter, *, before: int | None, limit: int
) -> list[AuditEntry]:
    """The newest first, of those before the one with this number."""
    query = _wanted(tenant, wanted)
    if before is not None:
        query = query.where(table.c.number < before)
    return await _entries(connection, query.order_by(table.c.number.desc()).limit(limit))


async def following(
    connection: AsyncConnection, tenant: str, wanted: AuditFilter, *, after: int, limit: int
) -> list[AuditEntry]:
    """In order, behind the one with this number."""
    query = _wanted(tenant, wanted).where(table.c.number > after)
    return await _entries(connection, query.order_by(table.c.number).limit(limit))


async def last_before(connection: AsyncConnection, tenant: str, at: float) -> tuple[int, str] | None:
    """Number and hash of the last entry such that all up to it were made before `at`."""
    young = select(func.min(table.c.number)).where(table.c.tenant == tenant, table.c.at >= at)
    query = select(table.c.number, table.c.hash).where(table.c.tenant == tenant)
    first_young = (await connection.execute(young)).scalar_one()
    if first_young is not None:
        query = query.where(table.c.number < first_young)
    row = (await connection.execute(query.order_by(table.c.number.desc()).limit(1))).first()
    return None if row is None else (row.number, row.hash)


async def cut(connection: AsyncConnection, tenant: str, number: int, hashed: str) -> int:
    """Remove all up to this one, by who has locked the chain; how many those were."""
    gone = await connection.execute(delete(table).where(table.c.tenant == tenant, table.c.number <= number))
    await connection.execute(
        update(chains).where(chains.c.tenant == tenant).values(cut_number=number, cut_hash=hashed)
    )
    return gone.rowcount


def _wanted(tenant: str, wanted: AuditFilter) -> Select[Any]:
    query = select(table).where(table.c.tenant == tenant)
    if wanted.actions:
        query = query.where(
            or_(
                *(
                    table.c.action.startswith(name, autoescape=True)
                    if name.endswith(".")
                    else table.c.action == name
                    for name in wanted.actions
                )
            )
        )
    if wanted.actor_id is not None:
        query = query.where(table.c.actor_id == wanted.actor_id)
    if wanted.target is not None:
        query = query.where(table.c.target == wanted.target)
    if wanted.since is not None:
        query = query.where(table.c.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(table.c.at < wanted.until)
    return query


async def _entries(connection: AsyncConnection, query: Select[Any]) -> list[AuditEntry]:
    rows = await connection.execute(query)
    return [
        AuditEntry(**{name: row._mapping[name] for name in AuditEntry.__dataclass_fields__}) for row in rows
    ]
