"""What the database holds of a person or of a tenant, whatever the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Table, case, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db import tables_access as access
from voiceforge.infra.db.records import Job
from voiceforge.infra.db.tables import batches, events, metadata, recordings, transcriptions, uploads
from voiceforge.infra.db.transcriptions import jobs_of

STAYING = frozenset({"audit", "audit_chains", "signing_keys", "tenants"})
"""The log keeps ids; keys that sign are the server's; tenants have a place of their own."""
PEOPLE = frozenset({"users", "identities", "sessions", "api_keys", "one_time_tokens"})
_UNTOLD = frozenset({"chunks", "results", "signing_keys", "audit", "audit_chains"})
"""Texts are told as transcripts are, and the log has an export of its own."""
_SECRETS = frozenset({"password_hash", "refresh_hash", "hash", "secrets", "lease_token", "writer"})
_SUMS = ("requests", "cached", "audio_s", "latency_s")


async def some_jobs(connection: AsyncConnection, tenant: str, user_id: str | None, limit: int) -> list[Job]:
    """Locked until the end of the transaction. user_id: None: whoever's."""
    query = select(transcriptions).where(transcriptions.c.tenant == tenant)
    if user_id is not None:
        query = query.where(transcriptions.c.user_id == user_id)
    # In the order of their recordings, so that two who lock those do not wait for each other.
    query = query.order_by(transcriptions.c.recording_id, transcriptions.c.id)
    return jobs_of((await connection.execute(query.limit(limit).with_for_update())).all())


async def upload_ids(connection: AsyncConnection, tenant: str, user_id: str | None) -> list[str]:
    query = select(uploads.c.id).where(uploads.c.tenant == tenant)
    if user_id is not None:
        query = query.where(uploads.c.user_id == user_id)
    return list((await connection.execute(query)).scalars())


async def forget_batches(connection: AsyncConnection, tenant: str, user_id: str) -> int:
    """Those of a person that nothing is in any more."""
    filled = select(transcriptions.c.id).where(transcriptions.c.batch_id == batches.c.id)
    gone = await connection.execute(
        delete(batches).where(batches.c.tenant == tenant, batches.c.user_id == user_id, ~filled.exists())
    )
    return gone.rowcount


async def begin_erasing_recordings(connection: AsyncConnection, tenant: str) -> None:
    """Those of a tenant that no transcription refers to."""
    used = select(transcriptions.c.id).where(transcriptions.c.recording_id == recordings.c.id)
    await connection.execute(
        update(recordings).where(recordings.c.tenant == tenant, ~used.exists()).values(state="erasing")
    )


async def key_ids(connection: AsyncConnection, tenant: str, user_id: str) -> list[str]:
    query = select(access.api_keys.c.id).where(
        access.api_keys.c.tenant == tenant, access.api_keys.c.user_id == user_id
    )
    return list((await connection.execute(query)).scalars())


async def unname_usage(connection: AsyncConnection, tenant: str, user_id: str, keys: Sequence[str]) -> None:
    """What a person used stays in the sums, as nobody's own."""
    rows, days = access.usage, access.usage_days
    of_rows = (rows.c.tenant == tenant) & or_(rows.c.user_id == user_id, rows.c.key_id.in_(keys))
    await connection.execute(update(rows).where(of_rows).values(user_id=None, key_id=None))
    of_days = (days.c.tenant == tenant) & or_(days.c.user_id == user_id, days.c.key_id.in_(keys))
    group = [days.c[name] for name in ("tenant", "day", "model", "door", "class")]
    sums = [func.sum(days.c[name]).label(name) for name in _SUMS]
    found = (await connection.execute(select(*group, *sums).where(of_days).group_by(*group))).mappings().all()
    await connection.execute(delete(days).where(of_days))
    if found:
        insert: Any = insert_sqlite if connection.dialect.name == "sqlite" else insert_postgresql
        statement = insert(days)
        added = {name: days.c[name] + statement.excluded[name] for name in _SUMS}
        await connection.execute(
            statement.on_conflict_do_update(index_elements=list(days.primary_key), set_=added),
            [dict(row) | {"user_id": "", "key_id": ""} for row in found],
        )


def exported_tables(user_id: str | None) -> list[str]:
    """Those of which rows can be told: of a person, where one is asked for."""
    return [
        table.name
        for table in metadata.sorted_tables
        if table.name not in _UNTOLD and _of(table, "", user_id) is not None
    ]


async def some_rows(
    connection: AsyncConnection, name: str, tenant: str, user_id: str | None, *, skip: int, limit: int
) -> list[dict[str, Any]]:
    """By the names of their columns, in order; without secrets."""
    table = metadata.tables[name]
    condition = _of(table, tenant, user_id)
    assert condition is not None
    columns = [column for column in table.c if column.name not in _SECRETS]
    query = select(*columns).where(condition).order_by(*table.primary_key).offset(skip).limit(limit)
    return [dict(row) for row in (await connection.execute(query)).mappings()]


def _of(table: Table, tenant: str, user_id: str | None) -> ColumnElement[bool] | None:
    """Which rows are a tenant's, or one person's in it; None: none can be."""
    if "tenant" not in table.c:
        return None
    own = table.c.tenant == tenant
    if user_id is None:
        return own
    if table.name == "users":
        return own & (table.c.id == user_id)
    if "user_id" in table.c:
        return own & (table.c.user_id == user_id)
    theirs = select(transcriptions.c.id).where(
        transcriptions.c.tenant == tenant, transcriptions.c.user_id == user_id
    )
    if table.name == "events":
        return own & table.c.transcription_id.in_(theirs)
    if table.name == "deliveries":
        told = select(events.c.id).where(events.c.transcription_id.in_(theirs))
        return own & table.c.event_id.in_(told)
    return None


async def forget_tokens(connection: AsyncConnection, tenant: str, email: str) -> None:
    """Invitations and registrations that name an address."""
    table = access.one_time_tokens
    query = select(table.c.hash, table.c.data).where(table.c.tenant.in_((tenant, "")))
    found = [row.hash for row in await connection.execute(query) if row.data.get("email") == email]
    await connection.execute(delete(table).where(table.c.hash.in_(found)))


async def forget_rows(connection: AsyncConnection, tenant: str, *, with_people: bool) -> int:
    """Every row of a tenant but of `STAYING`, and recordings, whose blobs are still there; how many."""
    count = 0
    for table in _of_tenants():
        if with_people or table.name not in PEOPLE:
            count += (await connection.execute(delete(table).where(table.c.tenant == tenant))).rowcount
    return count


async def forget_tenant(connection: AsyncConnection, tenant: str) -> None:
    await connection.execute(delete(access.tenants).where(access.tenants.c.id == tenant))


async def shut_out(connection: AsyncConnection, tenant: str, now: float) -> None:
    """Nobody of it comes in any more."""
    table = access.tenants
    at = case((table.c.disabled_at.is_(None), now), else_=table.c.disabled_at)
    await connection.execute(update(table).where(table.c.id == tenant).values(disabled_at=at))


def _of_tenants() -> list[Table]:
    """Those that refer to others first."""
    return [
        table
        for table in reversed(metadata.sorted_tables)
        if "tenant" in table.c and table.name not in STAYING and table.name != recordings.name
    ]
