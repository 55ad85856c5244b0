"""One process that answers HTTP: an event loop, uvicorn in it, and an end that cuts nothing off.

Started: the port answers at once, the models load in a thread, /health/ready tells when they are there.
Stopped by a signal: not ready any more, new requests are refused, those in progress get
`server.grace_s`; then the port closes. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import uvicorn

from voiceforge.api.app import create_app
from voiceforge.api.deepgram_compat.errors import DeepgramErrors
from voiceforge.api.http.config import HttpConfig, HttpFeatures
from voiceforge.api.http.errors import ErrorReplies
from voiceforge.api.http.protocol import BoundedHeadProtocol, BoundedSocketProtocol, ConnectionLimits
from voiceforge.api.http.turns import TakeTurns, Turns
from voiceforge.api.native.errors import NativeErrors
from voiceforge.api.openai_compat.errors import OpenAIErrors
from voiceforge.errors import VoiceForgeError
from voiceforge.main.audit import note_tiers
from voiceforge.main.drain import DrainGate
from voiceforge.main.early_signals import RELOAD_SIGNAL, STOP_SIGNALS, EarlySignals
from voiceforge.main.limits import TierFile
from voiceforge.main.request_settings import temp_dir, transcribe_defaults
from voiceforge.main.settings import Settings
from voiceforge.main.settings_rules import is_protected
from voiceforge.services.container import Services
from voiceforge.telemetry.logger import Logger

if TYPE_CHECKING:
    from voiceforge.main.jobs import JobRoom
    from voiceforge.main.tls import Tls
    from voiceforge.main.wyoming import WyomingPort
    from voiceforge.services.limits import Limits

# Once requests have had their grace, how long their cancellation and the closing of connections may take.
_CLOSING_S = 2
_AT_ONCE_S = 0.3
_SWEEP_EVERY_S = 30.0
_HANDSHAKE_S = 10.0
_LOCAL = ("localhost", "*.localhost")
_TELL_FULL_EVERY_S = 10.0
# For so long may a thread compute before another gets its turn. Python's own 5 ms are what the event loop
# would wait, again and again, when many uploads arrive at once.
_TURN_S = 0.0005

_log = Logger(__name__)


def http_config(settings: Settings, version: str) -> HttpConfig:
    features, server = settings.features, settings.server
    # Without a key, a web page whose name was pointed at this machine would be as good as its owner.
    local = not (is_protected(settings) or server.insecure or server.allowed_hosts)
    return HttpConfig(
        temp_dir=temp_dir(settings),
        version=version,
        api_key=settings.api_key.get_secret_value() if settings.api_key is not None else None,
        max_upload_bytes=int(server.max_upload_bytes),
        defaults=transcribe_defaults(settings),
        unkept_upload_bytes=int(settings.retention.memory_bytes),
        unkept_text_s=settings.retention.fetch_s,
        features=HttpFeatures(
            features.openai_api, features.deepgram_api, features.url_input, features.metrics
        ),
        stream_resume_s=settings.streams.grace_s,
        upload_idle_s=server.body_timeout_s,
        max_body_bytes=int(server.max_body_bytes),
        allowed_hosts=server.allowed_hosts or (_LOCAL if local else None),
        any_address=local,
        cors_origins=server.cors_origins,
        trusted_proxies=server.trusted_proxies,
    )


class _Server(uvicorn.Server):
    """Leaves the signals to us, and can go on with another certificate. `up` is set once it accepts
    connections."""

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        limits: ConnectionLimits,
        tls: ssl.SSLContext | None,
    ) -> None:
        super().__init__(config)
        self.up = asyncio.Event()
        self.servers: list[asyncio.base_events.Server] = []
        self._listener = listener
        self._limits = limits
        self._tls = tls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.accept(self._tls)
        self.started = True
        self.up.set()

    async def accept(self, tls: ssl.SSLContext | None) -> None:
        """From now on connections begin like this; those that are open go on as they are. None is lost
        between: whoever accepts shares one queue with whoever did before."""
        server = await asyncio.get_running_loop().create_server(
            self._protocol,
            sock=self._listener.dup(),
            ssl=tls,
            backlog=self.config.backlog,
            ssl_handshake_timeout=None if tls is None else _HANDSHAKE_S,
        )
        before, self.servers = self.servers, [server]
        for old in before:
            old.close()

    def _protocol(self) -> asyncio.Protocol:
        return BoundedHeadProtocol(self.config, self.server_state, self.lifespan.state, limits=self._limits)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Serves `services` until a signal says stop; `exit_code` is then that of the process."""

    def __init__(
        self,
        settings: Settings,
        services: Services,
        version: str,
        jobs: JobRoom | None = None,
        wyoming: WyomingPort | None = None,
        tls: Tls | None = None,
    ) -> None:
        self._settings = settings
        self._wyoming = wyoming
        self._tls = tls
        self._jobs = jobs
        self._services = services if jobs is None else jobs.furnish(services)
        self._stop = asyncio.Event()
        self.exit_code = 0
        self._told_full_at = -_TELL_FULL_EVERY_S
        self._gate = DrainGate(
            TakeTurns(create_app(self._services, http_config(settings, version)), Turns()),
            ErrorReplies((OpenAIErrors(), DeepgramErrors(), NativeErrors())),
        )

    async def run(
        self,
        listener: socket.socket,
        on_listening: Callable[[], None],
        signals: EarlySignals,
    ) -> None:
        sys.setswitchinterval(_TURN_S)
        server = self._make_server(listener)
        self._take_signals(signals)
        serving = asyncio.create_task(server.serve([listener]))
        up = asyncio.create_task(server.up.wait())
        try:
            await asyncio.wait((up, serving), return_when=asyncio.FIRST_COMPLETED)
            if up.done():
                if not self._stop.is_set():
                    if self._wyoming is not None:
                        await self._wyoming.open(self._services)
                    on_listening()
                    await self._until_stopped(serving, server)
                await self._drain()
            server.should_exit = True
            await serving
        finally:
            up.cancel()
            await asyncio.to_thread(self._close)
            if self._services.results is not None:
                await self._services.results.close()
            if self._services.limits is not None:
                await self._services.limits.close()
            if self._jobs is not None:
                await self._jobs.close()
            _log.info("stopped")

    async def _until_stopped(self, serving: asyncio.Task[None], server: _Server) -> None:
        """Models load, idle ones go, jobs are worked on, in the background, for as long as the server runs.
        Jobs are given back at its end and need no grace: they go on where they were."""
        stop = asyncio.create_task(self._stop.wait())
        chores = [asyncio.create_task(self._preload()), asyncio.create_task(self._sweep())]
        if self._jobs is not None:
            chores.append(asyncio.create_task(self._jobs.run()))
        if self._services.limits is not None:
            chores.append(asyncio.create_task(self._tier_file(self._services.limits).keep()))
        if self._tls is not None:
            chores.append(asyncio.create_task(self._keep_tls(self._tls, server)))
        try:
            await asyncio.wait((stop, serving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stop, *chores):
                task.cancel()
            await asyncio.gather(stop, *chores, return_exceptions=True)

    def _tier_file(self, limits: Limits) -> TierFile:
        audit = self._services.audit
        return TierFile(self._settings, limits.tiers, None if audit is None else partial(note_tiers, audit))

    async def _keep_tls(self, tls: Tls, server: _Server) -> None:
        async def take_up(context: ssl.SSLContext) -> None:
            await server.accept(context)
            if self._wyoming is not None:
                await self._wyoming.accept(context)

        await tls.keep(take_up)

    async def _preload(self) -> None:
        default, *others = dict.fromkeys((self._settings.model, *self._settings.models.preload))
        try:
            await asyncio.to_thread(self._load, default)
        except VoiceForgeError as error:
            self._services.health.model_failed(error.message)
            _log.error("default model not loaded", model=default, problem=error.message)
        except Exception:
            self._services.health.model_failed("it could not be loaded; the server's log has the details")
            _log.exception("default model not loaded", model=default)
        for name in others:
            try:
                await asyncio.to_thread(self._load, name)
            except Exception:
                _log.exception("model not preloaded", model=name)

    def _load(self, name: str) -> None:
        """Blocks."""
        self._services.transcriptions.preload(self._services.models.require_installed(name))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_EVERY_S)
            await asyncio.to_thread(self._services.engines.sweep)

    def _take_signals(self, early: EarlySignals) -> None:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        if self._tls is not None:
            loop.add_signal_handler(RELOAD_SIGNAL, self._tls.look_now)
        if early.asked:
            self._stop.set()

    def _on_signal(self, number: signal.Signals) -> None:
        if not self._stop.is_set():
            self._stop.set()
            return
        _log.warning("stopped at once by a second signal")
        self.exit_code = 128 + number
        self._gate.cancel_all()
        # Long enough for requests to remove their files; threads in native code are not waited for.
        asyncio.get_running_loop().call_later(_AT_ONCE_S, os._exit, self.exit_code)

    async def _drain(self) -> None:
        self._services.health.drain()
        waiting = self._gate.close()
        streams = self._services.streams.drain() if self._services.streams is not None else 0
        grace_s = self._settings.server.grace_s
        _log.info("draining", requests=waiting, streams=streams, grace_s=grace_s)
        wyoming = self._wyoming.close(grace_s) if self._wyoming is not None else asyncio.sleep(0)
        empty, _ = await asyncio.gather(self._gate.wait_empty(grace_s), wyoming)
        if not empty:
            _log.warning("grace is over", cut_off=self._gate.in_progress)
            self._gate.cancel_all()

    def _close(self) -> None:
        self._services.engines.close(grace_s=_CLOSING_S)
        if self._services.streams is not None:
            self._services.streams.close()
        self._services.transcriptions.close()

    def _make_server(self, listener: socket.socket) -> _Server:
        wishes = self._settings.server
        config = uvicorn.Config(
            self._gate,
            http=BoundedHeadProtocol,
            ws=BoundedSocketProtocol,
            ws_max_size=int(self._settings.streams.max_frame_bytes),
            # Speech does not deflate; a window per connection would only take memory.
            ws_per_message_deflate=False,
            log_config=None,
            access_log=False,  # the app logs its requests itself, with their ids
            lifespan="off",
            server_header=False,
            proxy_headers=False,  # the app knows whom to believe
            timeout_graceful_shutdown=_CLOSING_S,
        )
        limits = ConnectionLimits(
            head_bytes=int(wishes.max_header_bytes),
            head_s=wishes.header_timeout_s,
            unread_s=wishes.body_timeout_s,
            connections=wishes.max_connections,
            on_full=self._on_full,
        )
        return _Server(config, listener, limits, None if self._tls is None else self._tls.context)

    def _on_full(self) -> None:
        """A flood of connections shall not be one of lines."""
        now = time.monotonic()
        if now - self._told_full_at > _TELL_FULL_EVERY_S:
            self._told_full_at = now
            _log.warning("connections_turned_away", most=self._settings.server.max_connections)
