"""What nobody looks after any more: jobs whose worker died, and jobs that no worker was told of."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db import leases, line
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.records import Claim, Job, JobError, JobStatus, Rank
from voiceforge.infra.jobqueue.base import JobQueue
from voiceforge.services.job_news import JobNews
from voiceforge.services.job_rules import JobObserver, RunRules
from voiceforge.services.job_tasks import lane_of, task_of
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)

_MOST_LOOKED_AT = 1000
_PATIENCE_S = 5.0
"""From telling workers of a job until one may be expected to have taken it, or the queue to hold it."""
_ENOUGH_TOLD = 1000
"""While a lane of the queue holds so many tasks, nobody looks for lost ones."""
_LOST = JobError(
    "internal",
    "worker_lost",
    "the process that worked on this ended, and so did those that tried again",
    True,
)


@dataclass(frozen=True, slots=True)
class Workplace:
    """Which process works: enough for another on the same machine to tell whether it still lives."""

    host: str
    pid: int
    started_at: int

    @classmethod
    def here(cls) -> Workplace:
        import psutil

        return cls(socket.gethostname(), os.getpid(), int(psutil.Process().create_time()))

    def __str__(self) -> str:
        return f"{self.host[:80]}/{self.pid}/{self.started_at}"

    def saw_die(self, worker: str | None) -> bool:
        """Whether this was a process of our machine that is no more."""
        import psutil

        host, _, rest = (worker or "").partition("/")
        pid, _, started_at = rest.partition("/")
        if host != self.host[:80] or not (pid.isdigit() and started_at.isdigit()):
            return False
        try:
            return int(psutil.Process(int(pid)).create_time()) != int(started_at)
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


class JobSweep:
    def __init__(
        self,
        *,
        database: Database,
        queue: JobQueue,
        news: JobNews,
        rules: RunRules,
        workplace: Workplace,
        observer: JobObserver | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._queue = queue
        self._news = news
        self._rules = rules
        self._workplace = workplace
        self._observer = observer
        self._clock = clock

    async def run(self) -> bool:
        """Take lost jobs from their workers and have them waiting again; whether there were any.

        Raises:
            Unavailable
        """
        now = self._clock()
        back = []
        async with self._database.transaction() as connection:
            for claim in await leases.running(connection, _MOST_LOOKED_AT):
                lost = claim.lease_until < now or self._workplace.saw_die(claim.job.worker)
                if lost and await self._take_back(connection, claim, now):
                    back.append(claim.job)
        await self._tell(back, now)
        return bool(back)

    async def _tell(self, back: Sequence[Job], now: float) -> None:
        """Tell workers of these, of jobs that became due, and of those that the queue has lost: of a lane in
        which more jobs wait than it holds tasks, all, since nobody knows which. What is told twice is taken
        once."""
        held = await self._queue.held()
        if held is None:
            await self._queue.offer([task_of(job) for job in back])
            return
        async with self._database.reading() as connection:
            # Those that are back are among them.
            jobs = await line.newly_due(connection, now, _MOST_LOOKED_AT)
            for lane, tasks in held.items():
                ranks = [rank for rank in Rank if lane_of(rank) is lane]
                if not ranks or tasks >= _ENOUGH_TOLD:
                    continue
                waiting = await line.told_before(connection, ranks, now, now - _PATIENCE_S, _MOST_LOOKED_AT)
                if len(waiting) > tasks:
                    _log.warning("queue has lost tasks", lane=lane, jobs=len(waiting), tasks=tasks)
                    jobs += waiting
        if jobs:
            # Before they are told: a worker is quick, and must not find them locked by this.
            async with self._database.transaction() as connection:
                await line.set_told(connection, [job.id for job in jobs], now)
            await self._queue.offer([task_of(job) for job in jobs])

    async def _take_back(self, connection: AsyncConnection, claim: Claim, now: float) -> bool:
        """Whether it waits again now."""
        job = claim.job
        if job.cancel_requested or job.attempts >= self._rules.max_attempts:
            status = JobStatus.CANCELLED if job.cancel_requested else JobStatus.FAILED
            error = None if job.cancel_requested else _LOST
            if await leases.end(connection, claim, status, now=now, error=error):
                await self._news.status(connection, job, status, now, error)
                _log.warning("job of a dead worker ended", job=job.id, status=status)
                if self._observer is not None:
                    code = None if error is None else error.code
                    self._observer.job_ended(status, seconds=now - job.created_at, code=code)
            return False
        _log.warning("job of a dead worker goes on", job=job.id, attempts=job.attempts)
        if self._observer is not None:
            self._observer.job_retried(_LOST.code)
        return await leases.give_back(connection, claim, available_at=now, counted=True, error=None)
