"""What nobody looks after any more: jobs whose worker died, and jobs that no worker was told of."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db import leases
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.records import Claim, JobError, JobStatus
from voiceforge.infra.jobqueue.base import JobQueue
from voiceforge.services.job_news import JobNews
from voiceforge.services.job_runner import RunRules
from voiceforge.services.jobs import task_of
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)

_MOST_LOOKED_AT = 1000
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
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._queue = queue
        self._news = news
        self._rules = rules
        self._workplace = workplace
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
        await self._queue.offer([task_of(job) for job in back])
        return bool(back)

    async def _take_back(self, connection: AsyncConnection, claim: Claim, now: float) -> bool:
        """Whether it waits again now."""
        job = claim.job
        if job.cancel_requested or job.attempts >= self._rules.max_attempts:
            status = JobStatus.CANCELLED if job.cancel_requested else JobStatus.FAILED
            error = None if job.cancel_requested else _LOST
            if await leases.end(connection, claim, status, now=now, error=error):
                await self._news.status(connection, job, status, now, error)
                _log.warning("job of a dead worker ended", job=job.id, status=status)
            return False
        _log.warning("job of a dead worker goes on", job=job.id, attempts=job.attempts)
        return await leases.give_back(connection, claim, available_at=now, counted=True, error=None)
