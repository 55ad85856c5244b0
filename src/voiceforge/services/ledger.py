"""Books what was transcribed, and knows what is left of a month.

What this process hears is written once a second, in one transaction: whoever kills it loses at most that
second of bookings, and nothing is ever booked twice, since every booking has an id. Jobs are booked by
whoever ends them, in the transaction of their end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from voiceforge.errors import QuotaExceeded, StorageFull, Unavailable, VoiceForgeError
from voiceforge.infra.db import usage as rows
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.usage import DAY_S, Booking, UsageFilter
from voiceforge.services.access import Caller
from voiceforge.services.bookings import Heard
from voiceforge.services.tiers import Tier, Tiers
from voiceforge.telemetry.logger import Logger
from voiceforge.telemetry.metrics import Metrics

_EVERY_S = 1.0
_AT_ONCE = 1000
_MOST_WAITING = 200_000
"""More than a day without a database brings on a busy machine; about 100 MB."""
_FRESH_S = 10.0
_PATIENCE_S = 0.25
_MOST_MONTHS = 10_000

_log = Logger(__name__)

_Whose = tuple[str, str | None]
"""A tenant, and a key of theirs or None for all."""


@dataclass(slots=True)
class _Month:
    """used_s: as the database said at `read_at` (monotonic), and what was booked here since."""

    first_day: int
    used_s: float
    read_at: float


@dataclass(frozen=True, slots=True)
class Quota:
    """How a month stands, in minutes of audio."""

    used: float
    soft: float | None
    hard: float | None
    ends_in_s: float

    @property
    def warning(self) -> str | None:
        if self.soft is None or self.used < self.soft:
            return None
        most = "" if self.hard is None else f"; {self.hard:g} is the most"
        return f"{self.used:.1f} of {self.soft:g} audio minutes of this month are used{most}"


class Ledger:
    """Belongs to one event loop, but `book` may be called from any thread.

    Args:
        clock: Unix seconds.
    """

    def __init__(
        self,
        database: Database,
        tiers: Tiers,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._tiers = tiers
        self._metrics = metrics
        self._clock = clock
        self._waiting: list[Booking] = []
        self._months: dict[_Whose, _Month] = {}
        self._looking: dict[_Whose, asyncio.Task[None]] = {}
        self._writing = asyncio.Lock()
        self._told = False

    # -- booking

    def book(self, heard: Heard) -> None:
        now, caller = self._clock(), heard.caller
        if len(self._waiting) >= _MOST_WAITING:
            self._metrics.bookings_lost(1)
            return
        self._waiting.append(
            Booking(
                id=heard.id or new_id("use", now),
                tenant=caller.tenant,
                at=now,
                key_id=caller.key_id,
                user_id=caller.user_id,
                model=heard.model,
                door=heard.door,
                work_class=heard.work_class,
                audio_s=heard.audio_s,
                latency_s=heard.latency_s,
                cached=heard.cached,
            )
        )
        for whose in _whose(caller):
            month = self._months.get(whose)
            if month is not None:
                month.used_s += heard.audio_s

    async def run(self) -> None:
        """Write what was booked, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what was booked. What cannot be written now waits."""
        async with self._writing:
            while self._waiting:
                some = self._waiting[:_AT_ONCE]
                try:
                    async with self._database.transaction() as connection:
                        await rows.add(connection, some)
                except (Unavailable, StorageFull) as error:
                    if not self._told:
                        _log.warning("usage not written yet", bookings=len(self._waiting), problem=error.code)
                    self._told = True
                    return
                except Exception:
                    _log.exception("usage not written yet", bookings=len(self._waiting))
                    return
                del self._waiting[: len(some)]
                self._told = False

    async def close(self) -> None:
        """Write what is left."""
        await asyncio.gather(*self._looking.values())
        await self.flush()
        if self._waiting:
            _log.error("usage lost", bookings=len(self._waiting))
            self._metrics.bookings_lost(len(self._waiting))

    # -- quotas

    async def look(self, caller: Caller) -> None:
        """Find out how the month of a caller stands, where that is not known well enough. A database that
        does not answer soon holds nobody up: then what is known goes on."""
        for whose, tier in self._limited(caller):
            if tier.audio_minutes_soft is None and tier.audio_minutes_hard is None:
                continue
            first_day, month = _month(self._clock())[0], self._months.get(whose)
            known = month is not None and month.first_day == first_day
            if known and month is not None and time.monotonic() - month.read_at < _FRESH_S:
                continue
            task = self._looking.get(whose)
            if task is None:
                task = self._looking[whose] = asyncio.create_task(self._read(whose, first_day))
                task.add_done_callback(lambda _, whose=whose: self._looking.pop(whose, None))  # type: ignore[misc]
            if not known:
                await asyncio.wait((task,), timeout=_PATIENCE_S)

    async def _read(self, whose: _Whose, first_day: int) -> None:
        tenant, key_id = whose
        wanted = UsageFilter(first_day, first_day + 31, key_id=key_id)
        try:
            async with self._database.reading() as connection:
                used_s = await rows.audio_s(connection, tenant, wanted)
        except VoiceForgeError:
            return
        used_s += sum(
            one.audio_s
            for one in self._waiting
            if one.tenant == tenant and (key_id is None or one.key_id == key_id)
        )
        if len(self._months) >= _MOST_MONTHS:
            self._months.clear()
        self._months[whose] = _Month(first_day, used_s, time.monotonic())

    def check(self, caller: Caller) -> None:
        """
        Raises:
            QuotaExceeded: what the caller may have in a month is used up.
        """
        for quota in self.quotas(caller):
            if quota.hard is not None and quota.used >= quota.hard:
                raise QuotaExceeded(
                    f"the {quota.hard:g} audio minutes of this month are used up",
                    retry_after_s=quota.ends_in_s,
                )

    def quotas(self, caller: Caller) -> list[Quota]:
        """As far as they are known: `look` finds out."""
        found = []
        for whose, tier in self._limited(caller):
            month = self._months.get(whose)
            first_day, ends_in_s = _month(self._clock())
            if month is not None and month.first_day == first_day:
                minutes = month.used_s / 60
                found.append(Quota(minutes, tier.audio_minutes_soft, tier.audio_minutes_hard, ends_in_s))
        return found

    def _limited(self, caller: Caller) -> list[tuple[_Whose, Tier]]:
        found: list[tuple[_Whose, Tier]] = []
        if caller.tier is not None:
            found.append(((caller.tenant, None), self._tiers.of(caller.tier)))
        if caller.key_tier is not None and caller.key_id is not None:
            found.append(((caller.tenant, caller.key_id), self._tiers.of(caller.key_tier)))
        return found


def _whose(caller: Caller) -> tuple[_Whose, ...]:
    everybody: _Whose = (caller.tenant, None)
    return (everybody,) if caller.key_id is None else (everybody, (caller.tenant, caller.key_id))


def _month(now: float) -> tuple[int, float]:
    """Its first day, counted from 1970, and in how many seconds it ends; in UTC."""
    today = datetime.fromtimestamp(now, UTC)
    first = datetime(today.year, today.month, 1, tzinfo=UTC)
    after = datetime(today.year + today.month // 12, today.month % 12 + 1, 1, tzinfo=UTC)
    return int(first.timestamp()) // DAY_S, after.timestamp() - now
