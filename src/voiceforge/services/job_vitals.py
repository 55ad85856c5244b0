"""How jobs are: looked at now and then, for health checks and metrics, so that nobody who asks waits for the
database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from voiceforge.errors import StorageFull, Unavailable
from voiceforge.infra.blobs.base import Blobs
from voiceforge.infra.db import line
from voiceforge.infra.db.database import Database
from voiceforge.infra.jobqueue.base import JobQueue, Lane
from voiceforge.services.health import Check
from voiceforge.services.job_tasks import lane_of
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)

_EVERY_S = 5.0
_TOO_OLD_S = 900.0
_UNKNOWN = Check("database", "ok", "not looked at yet")


class VitalsObserver(Protocol):
    def jobs_waiting(self, *, lane: str, depth: int, oldest_s: float) -> None: ...
    def jobs_running(self, count: int) -> None: ...


class JobVitals:
    """Args:
    queue: the broker's; None: this process works on jobs itself.
    clock: Unix seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        queue: JobQueue | None,
        observer: VitalsObserver,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._queue = queue
        self._observer = observer
        self._clock = clock
        self._checks: tuple[Check, ...] = (_UNKNOWN,)

    def checks(self) -> tuple[Check, ...]:
        """As they were a few seconds ago. What is away is degraded: other requests are answered without."""
        return self._checks

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:
                _log.exception("jobs could not be looked at")
            await asyncio.sleep(_EVERY_S)

    async def look(self) -> None:
        """Now."""
        checks = [*await self._jobs(), await self._store()]
        if self._queue is not None:
            checks.append(_queue_check(await self._queue.held()))
        self._checks = tuple(checks)

    async def _jobs(self) -> list[Check]:
        try:
            async with self._database.reading() as connection:
                lengths = await line.lengths(connection, self._clock())
                running = await line.being_worked_on(connection)
        except (Unavailable, StorageFull) as error:
            return [Check("database", "degraded", error.message)]
        waiting = {Lane.INTERACTIVE: 0, Lane.BULK: 0}
        oldest_s = dict.fromkeys(waiting, 0.0)
        for rank, length in lengths.items():
            lane = lane_of(rank)
            waiting[lane] += length.waiting
            oldest_s[lane] = max(oldest_s[lane], length.longest_wait_s)
        for lane, count in waiting.items():
            self._observer.jobs_waiting(lane=lane.value, depth=count, oldest_s=oldest_s[lane])
        self._observer.jobs_running(running)
        oldest = max(oldest_s.values())
        data = {"waiting": sum(waiting.values()), "running": running, "oldest_s": round(oldest, 1)}
        late = oldest > _TOO_OLD_S
        detail = "one has waited for more than 15 minutes" if late else "none has waited for long"
        return [
            Check("database", "ok", "it answers"),
            Check("jobs", "degraded" if late else "ok", detail, data),
        ]

    async def _store(self) -> Check:
        try:
            await self._blobs.check()
        except (Unavailable, StorageFull) as error:
            return Check("store", "degraded", error.message)
        return Check("store", "ok", "it answers")


def _queue_check(held: Mapping[Lane, int] | None) -> Check:
    if held is None:
        return Check("job_queue", "degraded", "the broker does not answer")
    return Check("job_queue", "ok", "it answers", {lane.value: count for lane, count in held.items()})
