"""Everything that works on jobs, as one process has it, around an engine that does what a test says.

Several of them on one database and one store are several processes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from voiceforge.infra.blobs.base import Blobs
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.records import Retention
from voiceforge.infra.enginehost.in_process import InProcessHosts
from voiceforge.infra.fetch.base import Fetcher
from voiceforge.infra.fetch.guard import check_destination
from voiceforge.infra.jobqueue.embedded import EmbeddedQueue
from voiceforge.infra.modelstore.disk import DiskModelStore
from voiceforge.infra.modelstore.hub import Hub
from voiceforge.services.engine_room import EngineRoom
from voiceforge.services.job_intake import JobIntake
from voiceforge.services.job_news import JobNews
from voiceforge.services.job_room_left import RoomLeft
from voiceforge.services.job_rules import RunRules
from voiceforge.services.job_runner import JobRunner
from voiceforge.services.job_sweep import JobSweep, Workplace
from voiceforge.services.job_workers import JobWorkers
from voiceforge.services.jobs import Jobs
from voiceforge.services.models import Models
from voiceforge.services.tiers import Tiers
from voiceforge.services.transcriptions import Transcriptions
from voiceforge.speech.engines.base import Capabilities
from voiceforge.speech.formats.subtitles import SubtitleOptions
from voiceforge.speech.pipeline.listen import LocalListener
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.fake_engine import FakeEngine, Script

MODEL = "moonshine-tiny-en"
SHORT_WINDOWS = Capabilities(languages=frozenset({"en"}), longest_window_s=30.0, best_window_s=4.0)


class TestClock:
    """Unix seconds that pass by themselves, and faster when told."""

    __test__ = False

    def __init__(self) -> None:
        import time

        self._time = time.time
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return self._time() + self.ahead_s


@dataclass
class JobHouse:
    """engine: what was asked of it stands in its `calls`."""

    database: Database
    blobs: Blobs
    intake: JobIntake
    jobs: Jobs
    news: JobNews
    runner: JobRunner
    sweep: JobSweep
    workers: JobWorkers
    engine: FakeEngine
    transcriptions: Transcriptions
    models: Models
    engines: EngineRoom
    metrics: Metrics
    clock: TestClock
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> asyncio.Task[None]:
        """Have its workers work; whoever wants them to stop cancels the task."""
        self._tasks.append(asyncio.create_task(self.workers.run()))
        return self._tasks[-1]

    async def stop(self) -> None:
        """As a process that was asked to."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def audio_s_decoded(self) -> float:
        """How much the engine has been asked for so far."""
        return sum(sum(call.window_samples) for call in self.engine.calls) / 16_000


@contextlib.asynccontextmanager
async def job_house(
    database: Database,
    blobs: Blobs,
    folder: Path,
    *,
    vad: SileroModel,
    script: Script | None = None,
    rules: RunRules = RunRules(),  # noqa: B008  # frozen
    fetcher: Fetcher | None = None,
    retention: Retention = Retention(),  # noqa: B008  # frozen
    workplace: Workplace | None = None,
    workers: int = 2,
    capabilities: Capabilities = SHORT_WINDOWS,
    news: Callable[[], JobNews] = JobNews,
    check_callback: Callable[[str], Awaitable[None]] | None = None,
    tiers: Tiers | None = None,
) -> AsyncIterator[JobHouse]:
    """One that is open while the block runs; its workers do not run unless started. The database and the
    store are the test's."""
    engine, metrics, clock = FakeEngine(script, capabilities=capabilities), Metrics("test"), TestClock()
    engines = EngineRoom(InProcessHosts(lambda model_id: engine), metrics=metrics)
    models = Models(
        DiskModelStore(folder / "models", Hub(None), offline=True), default=MODEL, aliases={}, loaded=engines
    )
    transcriptions = Transcriptions(
        models=models,
        engines=engines,
        listener=LocalListener(lambda: vad),
        aligner=lambda: None,
        fetcher=None,
        subtitles=SubtitleOptions(),
        metrics=metrics,
        temp_dir=folder,
        max_threads=8,
    )
    queue, told, here = EmbeddedQueue(), news(), workplace or Workplace.here()
    sweep = JobSweep(database=database, queue=queue, news=told, rules=rules, workplace=here, clock=clock)
    runner = JobRunner(
        database=database,
        blobs=blobs,
        transcriptions=transcriptions,
        fetcher=(lambda: fetcher) if fetcher is not None else None,
        news=told,
        temp_dir=folder,
        worker=str(here),
        rules=rules,
        clock=clock,
    )
    intake = JobIntake(
        database=database,
        blobs=blobs,
        queue=queue,
        transcriptions=transcriptions,
        news=told,
        check_callback=check_callback,
        check_url=check_destination,
        retention=retention,
        room_left=RoomLeft(tiers or Tiers()),
        clock=clock,
    )
    jobs = Jobs(database=database, blobs=blobs, queue=queue, intake=intake, news=told, clock=clock)
    house = JobHouse(
        database,
        blobs,
        intake,
        jobs,
        told,
        runner,
        sweep,
        JobWorkers(runner, queue, sweep, count=workers),
        engine,
        transcriptions,
        models,
        engines,
        metrics,
        clock,
    )
    try:
        yield house
    finally:
        await house.stop()
        await asyncio.to_thread(engines.close, 0)
        await asyncio.to_thread(transcriptions.close)
