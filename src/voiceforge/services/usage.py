"""Who used how much, and what it costs; and the rounds that add rows up by the day and forget them."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from voiceforge.errors import InvalidRequest
from voiceforge.infra.db import usage as rows
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.usage import DAY_S, UsageFilter, UsageSum
from voiceforge.services.access import Caller, Scope
from voiceforge.services.chores import Chore

COLUMNS: Mapping[str, str] = {
    "day": "day",
    "model": "model",
    "key": "key_id",
    "user": "user_id",
    "door": "door",
    "class": "class",
}
"""What can be grouped by."""
ANY_MODEL = "*"

_ROLL_UP_EVERY_S = 60.0
_FORGET_EVERY_S = 3600.0
_LEASE_S = 300.0
_AT_ONCE = 5000
_MOST_DAYS = 3660
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Prices:
    """per_minute: by model; `*` for all others. Models without a price have no cost."""

    per_minute: Mapping[str, Decimal] = field(default_factory=dict)
    currency: str = ""

    def of(self, model: str, audio_s: float) -> Decimal | None:
        price = self.per_minute.get(model, self.per_minute.get(ANY_MODEL))
        return None if price is None else price * Decimal(repr(audio_s)) / 60


@dataclass(frozen=True, slots=True)
class UsageRow:
    """group: by name of what was grouped by; "": nobody's own. latency_s: on average; None: no requests.
    cost: None where nothing of it has a price."""

    group: Mapping[str, Any]
    requests: int
    cached: int
    audio_s: float
    latency_s: float | None
    cost: Decimal | None


@dataclass(frozen=True, slots=True)
class UsageReport:
    """first, last: days in UTC, both included."""

    first: date
    last: date
    by: Sequence[str]
    total: UsageRow
    rows: Sequence[UsageRow]
    currency: str


class Usage:
    """
    Args:
        keep_s: single rows; the sums of days stay.
        clock: Unix seconds.
    """

    def __init__(
        self,
        database: Database,
        prices: Prices,
        *,
        keep_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._prices = prices
        self._keep_s = keep_s
        self._clock = clock

    async def report(
        self,
        caller: Caller,
        *,
        first: date | None = None,
        last: date | None = None,
        by: Sequence[str] = ("day",),
        key_id: str | None = None,
        model: str | None = None,
        door: str | None = None,
    ) -> UsageReport:
        """What the caller's tenant used.

        Args:
            first, last: None: of this month; up to today. UTC.
            by: of `COLUMNS`.

        Raises:
            PermissionDenied, InvalidRequest, Unavailable
        """
        tenant = caller.needs(Scope.USAGE)
        last = last or self.today()
        first = first or last.replace(day=1)
        if not 0 <= (last - first).days < _MOST_DAYS:
            raise InvalidRequest("'from' should be before 'to', by no more than ten years", field="from")
        wanted = UsageFilter(_day(first), _day(last), key_id=key_id, model=model, door=door)
        # With the model, since it has the price.
        columns = [COLUMNS[name] for name in by]
        async with self._database.reading() as connection:
            found = await rows.sums(connection, tenant, wanted, [*columns, "model"])
        grouped: dict[tuple[Any, ...], list[UsageSum]] = {}
        for one in found:
            grouped.setdefault(one.group[:-1], []).append(one)
        return UsageReport(
            first=first,
            last=last,
            by=tuple(by),
            total=self._row((), (), found),
            rows=[self._row(by, group, ones) for group, ones in grouped.items()],
            currency=self._prices.currency,
        )

    def _row(self, by: Sequence[str], group: Sequence[Any], ones: Sequence[UsageSum]) -> UsageRow:
        requests = sum(one.requests for one in ones)
        costs = [self._prices.of(one.group[-1], one.audio_s) for one in ones]
        priced = [cost for cost in costs if cost is not None]
        named = dict(zip(by, group, strict=True))
        if "day" in named:
            named["day"] = (_EPOCH + timedelta(days=named["day"])).isoformat()
        return UsageRow(
            group=named,
            requests=requests,
            cached=sum(one.cached for one in ones),
            audio_s=sum(one.audio_s for one in ones),
            latency_s=sum(one.latency_s for one in ones) / requests if requests else None,
            cost=sum(priced, Decimal(0)) if priced else None,
        )

    def today(self) -> date:
        return _EPOCH + timedelta(days=int(self._clock() // DAY_S))

    def chores(self) -> list[Chore]:
        return [
            Chore("usage_by_day", _ROLL_UP_EVERY_S, self.roll_up, lease_s=_LEASE_S),
            Chore("old_usage", _FORGET_EVERY_S, self.forget, lease_s=_LEASE_S),
        ]

    async def roll_up(self) -> int:
        """Add single rows to the sums of their days; how many."""
        return await self._all(lambda connection: rows.roll_up(connection, _AT_ONCE))

    async def forget(self) -> int:
        """Remove single rows that are older than they are to be kept; how many."""
        before = self._clock() - self._keep_s
        return await self._all(lambda connection: rows.forget(connection, before, _AT_ONCE))

    async def _all(self, some: Callable[[Any], Any]) -> int:
        count = 0
        while True:
            async with self._database.transaction() as connection:
                done: int = await some(connection)
            count += done
            if done < _AT_ONCE:
                return count


def as_csv(report: UsageReport) -> str:
    """One line for each row, by RFC 4180."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(
        [*report.by, "requests", "cached", "audio_seconds", "latency_seconds", "cost", "currency"]
    )
    for row in report.rows:
        writer.writerow(
            [
                *map(_inert, row.group.values()),
                row.requests,
                row.cached,
                round(row.audio_s, 3),
                "" if row.latency_s is None else round(row.latency_s, 3),
                "" if row.cost is None else f"{row.cost:.6f}",
                report.currency if row.cost is not None else "",
            ]
        )
    return text.getvalue()


def _inert(value: object) -> str:
    """Text that spreadsheets do not take for a formula."""
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _day(day: date) -> int:
    return (day - _EPOCH).days
