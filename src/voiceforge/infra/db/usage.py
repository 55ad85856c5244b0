"""What was transcribed, for whom: one row for each, added up by the day some time later.

A row is in the sum of its day, or waits to be added to it (`rolled` 0): never both, never neither. What both
tables hold together is the truth at any moment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CompoundSelect, delete, func, literal, select, union_all, update
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.tables_access import usage as table
from voiceforge.infra.db.tables_access import usage_days as days

DAY_S = 86_400
_OF = ("tenant", "day", "key_id", "user_id", "model", "door", "class")
_SUMS = ("requests", "cached", "audio_s", "latency_s")


@dataclass(frozen=True, slots=True)
class Booking:
    """id: of what was done; the same is booked once. at: Unix seconds. work_class: "live", "interactive" or
    "bulk"."""

    id: str
    tenant: str
    at: float
    key_id: str | None
    user_id: str | None
    model: str
    door: str
    work_class: str
    audio_s: float
    latency_s: float
    cached: bool = False


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """first_day, last_day: days since 1970 in UTC, both included. None: whatever; "": nobody's own."""

    first_day: int
    last_day: int
    key_id: str | None = None
    model: str | None = None
    door: str | None = None


@dataclass(frozen=True, slots=True)
class UsageSum:
    """group: the values of what was grouped by, in that order."""

    group: tuple[Any, ...]
    requests: int
    cached: int
    audio_s: float
    latency_s: float


async def add(connection: AsyncConnection, bookings: Sequence[Booking]) -> None:
    """What is booked already stays as it is."""
    if not bookings:
        return
    rows = [
        {
            "booking": one.id,
            "tenant": one.tenant,
            "at": one.at,
            "day": int(one.at // DAY_S),
            "key_id": one.key_id,
            "user_id": one.user_id,
            "model": one.model,
            "door": one.door,
            "class": one.work_class,
            "audio_s": one.audio_s,
            "latency_s": one.latency_s,
            "cached": int(one.cached),
            "rolled": 0,
        }
        for one in bookings
    ]
    await connection.execute(_insert(connection, table).on_conflict_do_nothing(), rows)


async def roll_up(connection: AsyncConnection, limit: int) -> int:
    """Add rows to the sums of their days; how many."""
    waiting = select(table.c.seq).where(table.c.rolled == 0).order_by(table.c.seq).limit(limit)
    rolled = await connection.execute(
        update(table)
        # Asked for again, where another did it while this waited for the row.
        .where(table.c.seq.in_(waiting.scalar_subquery()), table.c.rolled == 0)
        .values(rolled=1)
        .returning(table)
    )
    sums: defaultdict[tuple[Any, ...], list[float]] = defaultdict(lambda: [0, 0, 0.0, 0.0])
    count = 0
    for row in rolled.mappings():
        count += 1
        key = tuple(row[name] or "" if name.endswith("_id") else row[name] for name in _OF)
        of_day = sums[key]
        for place, value in enumerate((1, row["cached"], row["audio_s"], row["latency_s"])):
            of_day[place] += value
    # In one order, so that two who add to the same days do not wait for each other.
    rows = [
        dict(zip(_OF, key, strict=True)) | dict(zip(_SUMS, of_day, strict=True))
        for key, of_day in sorted(sums.items())
    ]
    if rows:
        insert = _insert(connection, days)
        added = {name: days.c[name] + insert.excluded[name] for name in _SUMS}
        await connection.execute(insert.on_conflict_do_update(index_elements=list(_OF), set_=added), rows)
    return count


async def forget(connection: AsyncConnection, before: float, limit: int) -> int:
    """Remove rows that are in the sums of their days; how many. before: Unix seconds."""
    old = select(table.c.seq).where(table.c.rolled == 1, table.c.at < before).limit(limit)
    gone = await connection.execute(delete(table).where(table.c.seq.in_(old.scalar_subquery())))
    return gone.rowcount


async def sums(
    connection: AsyncConnection, tenant: str, wanted: UsageFilter, by: Sequence[str]
) -> list[UsageSum]:
    """by: columns of `usage_days`; in their order."""
    both = _both(tenant, wanted).subquery()
    group = [both.c[name] for name in by]
    totals = [func.coalesce(func.sum(both.c[name]), 0) for name in _SUMS]
    query = select(*group, *totals)
    if group:
        query = query.group_by(*group).order_by(*group)
    found = await connection.execute(query)
    n = len(by)
    return [
        UsageSum(tuple(row[:n]), int(row[n]), int(row[n + 1]), float(row[n + 2]), float(row[n + 3]))
        for row in found
    ]


async def audio_s(connection: AsyncConnection, tenant: str, wanted: UsageFilter) -> float:
    """Seconds of audio."""
    return (await sums(connection, tenant, wanted, ()))[0].audio_s


def _both(tenant: str, wanted: UsageFilter) -> CompoundSelect[Any]:
    """One statement, so that what is added to a day meanwhile is seen once."""
    rolled = select(*(days.c[name] for name in (*_OF, *_SUMS)))
    waiting = select(
        table.c.tenant,
        table.c.day,
        func.coalesce(table.c.key_id, "").label("key_id"),
        func.coalesce(table.c.user_id, "").label("user_id"),
        table.c.model,
        table.c.door,
        table.c["class"],
        literal(1).label("requests"),
        table.c.cached,
        table.c.audio_s,
        table.c.latency_s,
    ).where(table.c.rolled == 0)
    parts = []
    for query, of in ((rolled, days), (waiting, table)):
        one = query.where(of.c.tenant == tenant, of.c.day.between(wanted.first_day, wanted.last_day))
        for name in ("key_id", "model", "door"):
            value = getattr(wanted, name)
            if value is not None:
                one = one.where(func.coalesce(of.c[name], "") == value)
        parts.append(one)
    return union_all(*parts)


def _insert(connection: AsyncConnection, into: Any) -> Any:
    return (insert_sqlite if connection.dialect.name == "sqlite" else insert_postgresql)(into)
