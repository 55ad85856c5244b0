"""What happened long ago need not be told in every detail any more.

The events of a job's chunks go some time after its end: who watches it then gets its text with the last
event, which stays as long as the job does, as the first one does. Deliveries that are over go with their log.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from voiceforge.infra.db import deliveries, events
from voiceforge.infra.db.database import Database
from voiceforge.services.chores import Chore
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)

_EVERY_S = 3600.0
_LEASE_S = 600.0
_JOBS_AT_ONCE = 50
_DELIVERIES_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Forgotten:
    """How many jobs lost the events of their chunks, and how many deliveries went."""

    jobs: int = 0
    deliveries: int = 0


class OldNews:
    """Args:
    events_s: from the end of a job.
    deliveries_s: from their end.
    clock: Unix seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        events_s: float,
        deliveries_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._events_s = events_s
        self._deliveries_s = deliveries_s
        self._clock = clock

    def chores(self) -> tuple[Chore, ...]:
        """To be done by one process at a time."""
        return (Chore("forget_old_news", _EVERY_S, self.forget, lease_s=_LEASE_S),)

    async def forget(self) -> Forgotten:
        """Some in each transaction, until there are none.

        Raises:
            Unavailable: the rest is for the next time.
        """
        forgotten = Forgotten(await self._forget_chunks(), await self._forget_deliveries())
        if forgotten != Forgotten():
            _log.info("old news forgotten", jobs=forgotten.jobs, deliveries=forgotten.deliveries)
        return forgotten

    async def _forget_chunks(self) -> int:
        count, before = 0, self._clock() - self._events_s
        while True:
            async with self._database.transaction() as connection:
                jobs = await events.jobs_with_old_chunks(connection, before, _JOBS_AT_ONCE)
                if jobs:
                    # Those of one job at once: who watches it meets all of them or none.
                    await events.forget_chunks(connection, jobs, before)
            if not jobs:
                return count
            count += len(jobs)

    async def _forget_deliveries(self) -> int:
        count, before = 0, self._clock() - self._deliveries_s
        while True:
            async with self._database.transaction() as connection:
                gone = await deliveries.forget_over(connection, before, _DELIVERIES_AT_ONCE)
            if not gone:
                return count
            count += gone
