"""Workers inside the serving process: loops that take the next job, and one that looks after lost ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from voiceforge.errors import VoiceForgeError
from voiceforge.infra.db.records import Rank
from voiceforge.infra.jobqueue.embedded import EmbeddedQueue
from voiceforge.services.job_runner import JobRunner
from voiceforge.services.job_sweep import JobSweep
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)

_LOOK_EVERY_S = 1.0
"""For jobs that another process accepted, or that wait for their next attempt."""
_SWEEP_EVERY_S = 5.0
_AFTER_TROUBLE_S = 2.0


class JobWorkers:
    """Args:
    count: jobs at a time. One more takes only those of high priority, which so never wait for long ones.
    """

    def __init__(self, runner: JobRunner, queue: EmbeddedQueue, sweep: JobSweep, *, count: int) -> None:
        self._runner = runner
        self._queue = queue
        self._sweep = sweep
        self._count = count

    async def run(self) -> None:
        """Until cancelled; then what was being worked on is given back, for whoever comes next."""
        await self._tried(self._sweep.run)
        loops = [self._work(tuple(Rank)) for _ in range(self._count)]
        loops += [self._work((Rank.HIGH,)), self._look_after()]
        async with asyncio.TaskGroup() as group:
            for loop in loops:
                group.create_task(loop)

    async def _work(self, ranks: Sequence[Rank]) -> None:
        while True:
            found = await self._tried(lambda: self._runner.run_next(ranks))
            if not found:
                await self._queue.wait(_LOOK_EVERY_S)

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_EVERY_S)
            await self._tried(self._sweep.run)

    async def _tried(self, act: Callable[[], Awaitable[bool]]) -> bool:
        """What fails is told and tried again later: workers outlive a database that does not."""
        try:
            return await act()
        except VoiceForgeError as error:
            _log.warning("jobs wait", problem=error.code)
        except Exception:
            _log.exception("a worker stumbled")
        await asyncio.sleep(_AFTER_TROUBLE_S)
        return False
