"""The first process behind `voiceforge serve`: it takes the port, keeps the processes of the models, and
answers HTTP itself or has worker processes do so.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from voiceforge.cli.ports import Listening
from voiceforge.errors import Conflict, VoiceForgeError
from voiceforge.main import quick_start
from voiceforge.main.build import build, keep_audio_host, keep_hosts
from voiceforge.main.early_signals import EarlySignals
from voiceforge.main.memory import return_large_blocks
from voiceforge.main.request_settings import temp_dir
from voiceforge.main.settings import Settings
from voiceforge.main.settings_rules import is_protected
from voiceforge.telemetry.logs import configure_logging

if TYPE_CHECKING:
    from voiceforge.infra.enginehost.keeper import HostKeeper
    from voiceforge.main.tls import Tls
    from voiceforge.services.container import Services

_BACKLOG = 2048


def serve(
    settings: Settings,
    *,
    version: str,
    signals: EarlySignals,
    on_listening: Callable[[Listening], None],
) -> None:
    """Serve until a signal says stop.

    Raises:
        Conflict: the port is taken.
        ConfigurationError: the files of TLS cannot be used.
        ModelNotFound, ModelNotInstalled: there is no such default model.
        VoiceForgeError: the address cannot be used.
    """
    configure_logging(settings.log.level, settings.log.format)
    return_large_blocks()
    tls = _tls(settings, signals)
    with contextlib.ExitStack() as stack:
        # First of all: a taken port is found out before anything is loaded.
        listener = stack.enter_context(_listening(settings.server.host, settings.server.port))
        wyoming = None
        if settings.wyoming.enabled:
            wyoming = stack.enter_context(_listening(settings.wyoming.host, settings.wyoming.port))
        signals.hold()
        house = stack.enter_context(_house(settings, version))
        told = Listening(
            _url(listener, "http" if tls is None else "https"),
            settings.model,
            is_protected(settings),
            None if wyoming is None else _url(wyoming, "tcp"),
        )
        doors = _Doors(listener, wyoming, tls)
        exit_code = _run(settings, version, signals, doors, house, lambda: on_listening(told))
    if exit_code:
        raise SystemExit(exit_code)


def serve_wyoming(
    settings: Settings,
    *,
    version: str,
    signals: EarlySignals,
    on_listening: Callable[[Listening], None],
) -> None:
    """Likewise, but nothing is spoken but Wyoming. Raises as `serve` does."""
    configure_logging(settings.log.level, settings.log.format)
    return_large_blocks()
    tls = _tls(settings, signals) if settings.wyoming.tls else None
    with _listening(settings.wyoming.host, settings.wyoming.port) as listener:
        signals.hold()
        with _house(settings, version) as house:
            if signals.asked:
                return
            house.load_ahead()
            from voiceforge.main.wyoming import WyomingProcess

            told = Listening(_url(listener, "tcp"), settings.model, protected=bool(settings.wyoming.allow))
            process = WyomingProcess(settings, house.services, version, tls)
            quick_start.settled()
            asyncio.run(process.run(listener, lambda: on_listening(told), signals))


@dataclass(frozen=True, slots=True)
class _House:
    """The services of a first process, and what other processes it keeps for them."""

    services: Services
    keeper: HostKeeper | None
    audio_host: Path | None

    def load_ahead(self) -> None:
        """A model in a process of its own loads while this one is still importing its web server."""
        if self.keeper is not None:
            threading.Thread(target=self._load, name="load-ahead", daemon=True).start()

    def _load(self) -> None:
        # Whoever serves asks for the model too, and has somebody to tell what is wrong with it.
        with contextlib.suppress(VoiceForgeError):
            self.services.engines.queue(self.services.models.require_installed(None))


@dataclass(frozen=True, slots=True)
class _Doors:
    """What listens already. tls: None where HTTP is spoken in the clear."""

    http: socket.socket
    wyoming: socket.socket | None
    tls: Tls | None


@contextlib.contextmanager
def _house(settings: Settings, version: str) -> Iterator[_House]:
    keeper = keep_hosts(settings) if settings.engine.isolation == "process" else None
    audio = keep_audio_host() if settings.audio.isolation == "process" else None
    audio_host = audio.address if audio is not None else None
    try:
        services = build(
            settings, version=version, hosts=keeper, audio_host=audio_host, keep_results=True, live=True
        )
        services.models.require_installed(None)
        temp_dir(settings).mkdir(mode=0o700, parents=True, exist_ok=True)
        yield _House(services, keeper, audio_host)
    finally:
        if audio is not None:
            audio.close()
        if keeper is not None:
            keeper.close()


def _run(
    settings: Settings,
    version: str,
    signals: EarlySignals,
    doors: _Doors,
    house: _House,
    on_listening: Callable[[], None],
) -> int:
    if signals.asked:
        return 0
    house.load_ahead()
    if settings.server.workers > 1:
        assert house.keeper is not None  # the settings see to it
        from voiceforge.main.supervisor import Supervisor

        quick_start.settled()
        supervisor = Supervisor(settings, version, doors.http, house.keeper, house.audio_host, doors.wyoming)
        return supervisor.run(signals, on_listening)
    from voiceforge.main.http_server import HttpServer
    from voiceforge.main.jobs import build_jobs

    port = None
    if doors.wyoming is not None:
        from voiceforge.main.wyoming import WyomingPort

        port = WyomingPort(settings, version, doors.wyoming, doors.tls)
    jobs = build_jobs(settings, house.services)
    server = HttpServer(settings, house.services, version, jobs, port, doors.tls)
    quick_start.settled()
    asyncio.run(server.run(doors.http, on_listening, signals))
    return server.exit_code


def _tls(settings: Settings, signals: EarlySignals) -> Tls | None:
    if settings.server.tls_certificate is None:
        return None
    from voiceforge.main.tls import Tls, tls_files

    files = tls_files(settings)
    assert files is not None
    signals.outlive_reload()
    return Tls(files)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
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
    with contextlib.closing(listener):
        yield listener


def _url(listener: socket.socket, scheme: str) -> str:
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104
        host = "localhost"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
