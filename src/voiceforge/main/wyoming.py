"""The Wyoming server inside a process, and the process that runs nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import Callable

from voiceforge.api.wyoming_server.announcement import Announcement
from voiceforge.api.wyoming_server.server import WyomingConfig, WyomingServer
from voiceforge.errors import VoiceForgeError
from voiceforge.main.early_signals import RELOAD_SIGNAL, STOP_SIGNALS, EarlySignals
from voiceforge.main.settings import Settings
from voiceforge.main.tls import Tls
from voiceforge.services.authentication import Authentication
from voiceforge.services.container import Services
from voiceforge.services.streams import Streams
from voiceforge.telemetry.logger import Logger

_SWEEP_EVERY_S = 30.0
_CLOSING_S = 2.0

_log = Logger(__name__)


def live_streams(services: Services) -> Streams:
    assert services.streams is not None  # the settings see to it
    return services.streams


class WyomingPort:
    """On a socket that listens already. Belongs to the event loop that opens it."""

    def __init__(
        self, settings: Settings, version: str, listener: socket.socket, tls: Tls | None = None
    ) -> None:
        wishes = settings.wyoming
        self._tls = tls if wishes.tls else None
        self._config = WyomingConfig(
            version=version,
            allow=wishes.networks,
            tenants=wishes.tenants_by_network,
            tenant=wishes.tenant,
            idle_s=wishes.idle_s,
        )
        self._listener = listener
        self._announcement = Announcement(*listener.getsockname()[:2]) if wishes.announce else None
        self._server: WyomingServer | None = None

    async def open(self, services: Services) -> None:
        authentication = services.authentication or Authentication()
        self._server = WyomingServer(live_streams(services), services.models, authentication, self._config)
        await self._server.start(self._listener, None if self._tls is None else self._tls.context)
        if self._announcement is not None:
            await self._announcement.start()

    async def accept(self, context: ssl.SSLContext) -> None:
        """Another certificate, from now on."""
        if self._server is not None and self._tls is not None:
            await self._server.accept(context)

    async def close(self, grace_s: float) -> None:
        if self._announcement is not None:
            await self._announcement.stop()
        if self._server is not None:
            await self._server.stop(grace_s)


class WyomingProcess:
    """Speaks Wyoming until a signal says stop; a second one ends it at once."""

    def __init__(self, settings: Settings, services: Services, version: str, tls: Tls | None = None) -> None:
        self._settings = settings
        self._tls = tls if settings.wyoming.tls else None
        self._services = services
        self._streams = live_streams(services)
        self._version = version
        self._stop = asyncio.Event()

    async def run(
        self, listener: socket.socket, on_listening: Callable[[], None], signals: EarlySignals
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        port = WyomingPort(self._settings, self._version, listener, self._tls)
        await port.open(self._services)
        chores = [asyncio.create_task(self._preload()), asyncio.create_task(self._sweep())]
        if self._tls is not None:
            loop.add_signal_handler(RELOAD_SIGNAL, self._tls.look_now)
            chores.append(asyncio.create_task(self._tls.keep(port.accept)))
        try:
            if not signals.asked:
                on_listening()
                await self._stop.wait()
        finally:
            for task in chores:
                task.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            self._streams.drain()
            await port.close(self._settings.server.grace_s)
            await asyncio.to_thread(self._close)
            _log.info("stopped")

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            os._exit(128 + number)
        self._stop.set()

    async def _preload(self) -> None:
        try:
            await asyncio.to_thread(self._load)
        except VoiceForgeError as error:
            _log.error("default model not loaded", model=self._settings.model, problem=error.message)

    def _load(self) -> None:
        """Blocks."""
        self._services.transcriptions.preload(self._services.models.require_installed(None))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_EVERY_S)
            await asyncio.to_thread(self._services.engines.sweep)

    def _close(self) -> None:
        self._services.engines.close(grace_s=_CLOSING_S)
        self._streams.close()
        self._services.transcriptions.close()
