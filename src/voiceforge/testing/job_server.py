"""A server on a real socket that takes jobs and works on them, its engine saying what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from voiceforge.api.app import create_app
from voiceforge.api.http.config import HttpConfig
from voiceforge.infra.blobs.base import Blobs
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.migrate import Migrations
from voiceforge.infra.jobqueue.embedded import EmbeddedQueue
from voiceforge.infra.webhooks.http import HttpWebhookSender
from voiceforge.services.batches import Batches
from voiceforge.services.container import Services
from voiceforge.services.job_rules import RunRules
from voiceforge.services.job_watch import JobWatch
from voiceforge.services.stream_keeper import StreamKeeper
from voiceforge.services.streams import StreamLimits, Streams
from voiceforge.services.uploads import Uploads
from voiceforge.services.webhooks import Webhooks
from voiceforge.speech.audio.stream_decoder import LocalStreamDecoders
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.fake_engine import Script
from voiceforge.testing.job_house import JobHouse, job_house
from voiceforge.testing.live_server import live_server
from voiceforge.testing.memory_blobs import MemoryBlobs
from voiceforge.testing.scripted_services import ScriptedTranscriptions, scripted_services

T = TypeVar("T")
Furnish = Callable[[Services, JobHouse], Services]
QUICK = RunRules(lease_s=10, heartbeat_s=0.1, look_s=0.05, backoff_s=0.05, max_attempts=3)


@dataclass
class JobServer:
    """What the server holds belongs to its own thread: `run` has things done there."""

    url: str
    house: JobHouse
    blobs: Blobs
    temp_dir: Path
    keeper: StreamKeeper
    _loop: asyncio.AbstractEventLoop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)


@contextlib.contextmanager
def job_server(
    database_url: str,
    folder: Path,
    *,
    vad: SileroModel,
    script: Script | None = None,
    works: bool = True,
    config: HttpConfig | None = None,
    furnish: Furnish | None = None,
) -> Iterator[JobServer]:
    """One that serves while the block runs.

    Args:
        works: False: jobs are taken and wait.
        furnish: gives it more services than these.
    """
    app = _AppWithJobs(database_url, folder, vad, script, works, config, furnish)
    with live_server(app) as server:
        # The first request is answered once the lifespan has begun; until then there is no house.
        _wait_for(server.host, server.port)
        assert app.house is not None
        assert app.loop is not None
        assert app.keeper is not None
        yield JobServer(server.url, app.house, app.house.blobs, folder, app.keeper, app.loop)


def _wait_for(host: str, port: int) -> None:
    import httpx

    httpx.get(f"http://{host}:{port}/health/live", timeout=30).raise_for_status()


class _AppWithJobs:
    def __init__(
        self,
        database_url: str,
        folder: Path,
        vad: SileroModel,
        script: Script | None,
        works: bool,
        config: HttpConfig | None,
        furnish: Furnish | None,
    ) -> None:
        self._database_url = database_url
        self._folder = folder
        self._vad = vad
        self._script = script
        self._works = works
        self._config = config or HttpConfig(temp_dir=folder, version="1.2.3", ping_interval_s=0.05)
        self._furnish = furnish
        self._app: ASGIApp | None = None
        self.house: JobHouse | None = None
        self.keeper: StreamKeeper | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            assert self._app is not None
            await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with AsyncExitStack() as stack:
            database = Database(self._database_url)
            stack.push_async_callback(database.close)
            await Migrations(database).upgrade()
            self.loop = asyncio.get_running_loop()
            self.house = await stack.enter_async_context(
                job_house(
                    database, MemoryBlobs(), self._folder, vad=self._vad, script=self._script, rules=QUICK
                )
            )
            services = scripted_services(ScriptedTranscriptions(), self._folder)
            stack.callback(services.engines.close, 0)
            streams = self._streams(self.house, stack)
            services = self._around(services, self.house, streams)
            if self._furnish is not None:
                services = self._furnish(services, self.house)
            self._app = create_app(services, self._config)
            if self._works:
                self.house.start()
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    def _streams(self, house: JobHouse, stack: AsyncExitStack) -> Streams:
        streams = Streams(
            models=house.models,
            engines=house.engines,
            aligner=lambda: None,
            decoders=LocalStreamDecoders(),
            metrics=house.metrics,
            limits=StreamLimits(grace_s=self._config.stream_resume_s),
            vad=lambda: self._vad,
        )
        self.keeper = StreamKeeper(
            folder=self._folder / "streams",
            jobs=house.jobs,
            models=house.models,
            transcriptions=house.transcriptions,
            metrics=house.metrics,
            defaults=TranscribeOptions(),
            clock=house.clock,
        )
        streams.keep_with(self.keeper)
        stack.push_async_callback(asyncio.to_thread, streams.close)
        stack.push_async_callback(asyncio.to_thread, house.engines.close, 0)
        stack.push_async_callback(self.keeper.close)
        return streams

    def _around(self, services: Services, house: JobHouse, streams: Streams) -> Services:
        return replace(
            services,
            streams=streams,
            models=house.models,
            transcriptions=house.transcriptions,
            jobs=house.jobs,
            job_watch=JobWatch(house.database, house.jobs),
            batches=Batches(house.database, house.intake, house.jobs, house.news),
            webhooks=Webhooks(database=house.database, sender=HttpWebhookSender(), queue=EmbeddedQueue()),
            uploads=Uploads(
                database=house.database,
                folder=self._folder / "uploads",
                temp_dir=self._folder,
                max_bytes=1 << 24,
            ),
        )
