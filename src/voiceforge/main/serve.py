"""The process behind `voiceforge serve`: one event loop, uvicorn in it, and an end that cuts nothing off.

Started: the port answers at once, the models load in a thread, /health/ready tells when they are there.
Stopped by a signal: not ready any more, new requests are refused, those in progress get
`server.grace_s`; then the port closes. A second signal ends it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog
import uvicorn
from starlette.types import ASGIApp

from voiceforge.api.app import create_app
from voiceforge.api.http.config import HttpConfig, HttpFeatures
from voiceforge.api.http.errors import ErrorReplies
from voiceforge.api.native.errors import NativeErrors
from voiceforge.api.openai_compat.errors import OpenAIErrors
from voiceforge.cli.ports import Listening
from voiceforge.errors import Conflict, VoiceForgeError
from voiceforge.infra.enginehost.keeper import Hosts
from voiceforge.main.build import build, keep_hosts
from voiceforge.main.drain import DrainGate
from voiceforge.main.memory import return_large_blocks
from voiceforge.main.request_settings import temp_dir, transcribe_defaults
from voiceforge.main.settings import Settings
from voiceforge.services.container import Services
from voiceforge.telemetry.logs import configure_logging
from voiceforge.telemetry.metrics import Metrics

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_BACKLOG = 2048
# Once requests have had their grace, how long their cancellation and the closing of connections may take.
_CLOSING_S = 2
_AT_ONCE_S = 0.3
_SWEEP_EVERY_S = 30.0
# No upload or download is worked on for this long; younger files may belong to a process beside us.
_ORPHAN_AGE_S = 12 * 3600

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def serve(settings: Settings, *, version: str, on_listening: Callable[[Listening], None]) -> None:
    """Serve until a signal says stop.

    Raises:
        Conflict: the port is taken.
        ModelNotFound, ModelNotInstalled: there is no such default model.
        VoiceForgeError: the address cannot be used.
    """
    configure_logging(settings.log.level, settings.log.format)
    return_large_blocks()
    # First of all: a taken port is found out before anything is loaded.
    with contextlib.closing(_listen(settings.server.host, settings.server.port)) as listener:
        services = build(settings, version=version, hosts=_hosts(settings))
        services.models.require_installed(None)
        _prepare(temp_dir(settings))
        listening = Listening(_url(listener), settings.model, settings.api_key is not None)
        process = _Process(settings, services, version)
        asyncio.run(process.run(listener, lambda: on_listening(listening)))
    if process.exit_code:
        raise SystemExit(process.exit_code)


def _hosts(settings: Settings) -> Callable[[Metrics], Hosts] | None:
    if settings.engine.isolation == "thread":
        return None
    return lambda metrics: keep_hosts(settings, metrics)


def _prepare(folder: Path) -> None:
    """Make the folder for temporary files, without those that a killed process left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    oldest = time.time() - _ORPHAN_AGE_S
    for path in folder.iterdir():
        if path.lstat().st_mtime >= oldest:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def http_config(settings: Settings, version: str) -> HttpConfig:
    features = settings.features
    return HttpConfig(
        temp_dir=temp_dir(settings),
        version=version,
        api_key=settings.api_key.get_secret_value() if settings.api_key is not None else None,
        max_upload_bytes=int(settings.server.max_upload_bytes),
        defaults=transcribe_defaults(settings),
        features=HttpFeatures(features.openai_api, features.url_input, features.metrics),
    )


class _Server(uvicorn.Server):
    """Leaves the signals to us. `up` is set once it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Process:
    def __init__(self, settings: Settings, services: Services, version: str) -> None:
        self._settings = settings
        self._services = services
        self._stop = asyncio.Event()
        self.exit_code = 0
        self._gate = DrainGate(
            create_app(services, http_config(settings, version)),
            ErrorReplies((OpenAIErrors(), NativeErrors())),
        )

    async def run(self, listener: socket.socket, on_listening: Callable[[], None]) -> None:
        server = _make_server(self._gate)
        self._take_signals()
        serving = asyncio.create_task(server.serve([listener]))
        up = asyncio.create_task(server.up.wait())
        try:
            await asyncio.wait((up, serving), return_when=asyncio.FIRST_COMPLETED)
            if up.done():
                on_listening()
                await self._until_stopped(serving)
                await self._drain()
            server.should_exit = True
            await serving
        finally:
            up.cancel()
            await asyncio.to_thread(self._close)
            _log.info("stopped")

    async def _until_stopped(self, serving: asyncio.Task[None]) -> None:
        """Models load and idle ones go, in the background, for as long as the server runs."""
        stop = asyncio.create_task(self._stop.wait())
        chores = [asyncio.create_task(self._preload()), asyncio.create_task(self._sweep())]
        try:
            await asyncio.wait((stop, serving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stop, *chores):
                task.cancel()
            await asyncio.gather(stop, *chores, return_exceptions=True)

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

    def _take_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)

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
        grace_s = self._settings.server.grace_s
        _log.info("draining", requests=waiting, grace_s=grace_s)
        if not await self._gate.wait_empty(grace_s):
            _log.warning("grace is over", cut_off=self._gate.in_progress)
            self._gate.cancel_all()

    def _close(self) -> None:
        self._services.engines.close(grace_s=_CLOSING_S)
        self._services.transcriptions.close()


def _make_server(app: ASGIApp) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,  # the app logs its requests itself, with their ids
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=_CLOSING_S,
        )
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host.strip("[]"), port), family=family, backlog=_BACKLOG)
        # Accepted connections inherit it; asyncio sets it only on sockets whose protocol number says
        # TCP, which this one's does not, and a reply in two parts would wait 40 ms for its second.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        address = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"{address} is in use by another program; choose another port with --port"
            ) from error
        raise VoiceForgeError(f"cannot listen on {address}: {error.strerror or error}") from error
    listener.setblocking(False)
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
