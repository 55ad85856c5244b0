"""The process behind `voiceforge worker`: it keeps the models, takes tasks from the broker, works on them,
and takes its turn at what comes round.

Stopped by a signal: takes nothing more, and gives back what it was working on, at once, for others to go on
from the last saved chunk. A second signal ends it without.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from voiceforge.cli.ports import WorkerWish
from voiceforge.errors import ConfigurationError
from voiceforge.infra.jobqueue.base import Lane, TaskKind
from voiceforge.infra.jobqueue.celery import celery_app
from voiceforge.main.build import build, keep_audio_host, keep_hosts
from voiceforge.main.early_signals import STOP_SIGNALS, EarlySignals
from voiceforge.main.jobs import JobRoom, build_jobs
from voiceforge.main.memory import return_large_blocks
from voiceforge.main.request_settings import temp_dir
from voiceforge.main.settings import Settings
from voiceforge.main.settings_jobs import JOBS_AT_ONCE
from voiceforge.main.worker_metrics import metrics_port
from voiceforge.telemetry.logger import Logger
from voiceforge.telemetry.logs import configure_logging
from voiceforge.worker.calls import Call, Calls
from voiceforge.worker.consumer import Consumer
from voiceforge.worker.tasks import add_tasks

if TYPE_CHECKING:
    from voiceforge.services.container import Services

_log = Logger(__name__)

_IDLE_MODELS_EVERY_S = 30.0
_GIVE_BACK_S = 10.0
_CLOSING_S = 5.0


def work(
    settings: Settings,
    wish: WorkerWish,
    *,
    version: str,
    signals: EarlySignals,
    on_ready: Callable[[], None],
) -> None:
    """Work until a signal says stop.

    Raises:
        ConfigurationError: there is no broker to take tasks from.
        Conflict: the port for metrics is taken.
        ModelNotFound, ModelNotInstalled
    """
    configure_logging(settings.log.level, settings.log.format)
    return_large_blocks()
    if settings.jobs.broker_url is None:
        raise ConfigurationError(
            ["`voiceforge worker` needs jobs.broker_url; without, `voiceforge serve` works on jobs itself"]
        )
    signals.hold()
    keeper = keep_hosts(settings) if settings.engine.isolation == "process" else None
    audio = keep_audio_host() if settings.audio.isolation == "process" else None
    try:
        services = build(
            settings,
            version=version,
            hosts=keeper,
            audio_host=audio.address if audio is not None else None,
            keep_results=True,
        )
        services.models.require_installed(None)
        temp_dir(settings).mkdir(mode=0o700, parents=True, exist_ok=True)
        process = WorkerProcess(
            settings,
            services,
            build_jobs(settings, services, told_by_broker=True),
            lanes=[Lane(lane) for lane in wish.lanes] or list(Lane),
            at_once=wish.at_once or settings.jobs.workers or JOBS_AT_ONCE,
        )
        with contextlib.ExitStack() as stack:
            if wish.metrics is not None:
                stack.enter_context(metrics_port(services.metrics, *wish.metrics))
            exit_code = asyncio.run(process.run(signals, on_ready))
    finally:
        if audio is not None:
            audio.close()
        if keeper is not None:
            keeper.close()
    if exit_code:
        raise SystemExit(exit_code)


class WorkerProcess:
    """Works for `room` until a signal says stop."""

    def __init__(
        self, settings: Settings, services: Services, room: JobRoom, *, lanes: Sequence[Lane], at_once: int
    ) -> None:
        self._settings = settings
        self._services = services
        self._room = room
        self._lanes = tuple(lanes)
        self._at_once = at_once
        self._stop = asyncio.Event()

    async def run(self, signals: EarlySignals, on_ready: Callable[[], None]) -> int:
        """The exit code of the process."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        if signals.asked:
            self._stop.set()
        calls = Calls(loop)
        broker = self._settings.jobs.broker_url
        assert broker is not None
        app = celery_app(broker.get_secret_value())
        add_tasks(app, calls, self._work())
        consumer = Consumer(
            app,
            name=f"voiceforge-{os.getpid()}@{socket.gethostname()}",
            lanes=self._lanes,
            at_once=self._at_once,
            on_ready=lambda: _told(loop, on_ready),
            on_ended=lambda: _told(loop, self._stop.set),
        )
        chores = [
            asyncio.create_task(chore)
            for chore in (
                self._start(consumer),
                self._room.vitals.run(),
                self._room.own_chores.run(),
                self._preload(),
                self._unload_idle(),
            )
        ]
        try:
            await self._stop.wait()
            _log.info("stopping")
            await calls.close(_GIVE_BACK_S)
            consumer.stop()
            await asyncio.to_thread(consumer.wait_ended, _CLOSING_S)
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            await asyncio.to_thread(self._close)
            if self._services.results is not None:
                await self._services.results.close()
            await self._room.close()
            _log.info("stopped")
        return consumer.exit_code

    def _work(self) -> dict[TaskKind, Call]:
        room = self._room
        return {TaskKind.TRANSCRIPTION: room.runner.run, TaskKind.SWEEP: lambda name: room.sweep.run()}

    async def _start(self, consumer: Consumer) -> None:
        """Once the database is there; then take turns at what comes round."""
        await self._room.open()
        consumer.start()
        await self._room.work()

    async def _preload(self) -> None:
        services = self._services
        try:
            model = services.models.require_installed(None)
            await asyncio.to_thread(services.transcriptions.preload, model)
        except Exception:
            _log.exception("default model not loaded")  # a job that needs it tries again

    async def _unload_idle(self) -> None:
        while True:
            await asyncio.sleep(_IDLE_MODELS_EVERY_S)
            await asyncio.to_thread(self._services.engines.sweep)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            _log.warning("stopped at once by a second signal")
            os._exit(128 + number)
        self._stop.set()

    def _close(self) -> None:
        self._services.engines.close(grace_s=0.0)
        self._services.transcriptions.close()


def _told(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is gone
        loop.call_soon_threadsafe(what)
