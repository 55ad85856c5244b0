"""One of several processes that answer HTTP for one server. Started by the supervisor, never by hand: with
its order on standard input, or as the nursery of several, whose orders are on the descriptors named.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import pickle
import socket
import sys
import threading
import time
from pathlib import Path

from voiceforge.errors import ConfigurationError
from voiceforge.infra.cache.clearings import SharedClearings
from voiceforge.infra.enginehost.remote_keeper import RemoteHosts
from voiceforge.main import nursery
from voiceforge.main.build import build
from voiceforge.main.early_signals import EarlySignals
from voiceforge.main.http_server import HttpServer
from voiceforge.main.jobs import build_jobs
from voiceforge.main.memory import return_large_blocks
from voiceforge.main.settings import Settings
from voiceforge.main.supervisor import WorkerOrder
from voiceforge.main.tls import Tls, tls_files
from voiceforge.telemetry.logger import Logger
from voiceforge.telemetry.logs import configure_logging
from voiceforge.telemetry.metrics import Metrics

_TRY_TLS_EVERY_S = 2.0

_log = Logger(__name__)


def main() -> None:
    told = sys.argv[1:]
    source = nursery.hatch(*map(int, told)) if told else sys.stdin.fileno()
    signals = EarlySignals()
    signals.take()
    try:
        order: WorkerOrder = pickle.load(os.fdopen(source, "rb", closefd=False))  # noqa: S301  # from our parent
    except EOFError:  # which is gone
        return
    threading.Thread(target=_end_with_parent, args=(source,), name="lifeline", daemon=True).start()
    configure_logging(order.settings.log.level, order.settings.log.format)
    return_large_blocks()
    signals.hold()
    tls = _tls(order.settings, signals)
    services = build(
        order.settings,
        version=order.version,
        hosts=RemoteHosts(order.keeper, order.name),
        audio_host=order.audio_host,
        metrics=Metrics(order.version, shared=order.metrics),
        keep_results=True,
        live=True,
        clearings=_map_clearings(order.clearings),
    )
    wyoming = None
    if order.wyoming_fd is not None:
        from voiceforge.main.wyoming import WyomingPort

        wyoming = WyomingPort(order.settings, order.version, socket.socket(fileno=order.wyoming_fd), tls)
    jobs = build_jobs(order.settings, services)
    server = HttpServer(order.settings, services, order.version, jobs, wyoming, tls)
    listener = socket.socket(fileno=order.listener_fd)

    def up() -> None:
        os.write(order.up_fd, b"!")
        os.close(order.up_fd)

    asyncio.run(server.run(listener, up, signals))
    sys.exit(server.exit_code)


def _tls(settings: Settings, signals: EarlySignals) -> Tls | None:
    """Waits where the files cannot be used just now: those who began before have what they read then, and go
    on."""
    files = tls_files(settings)
    if files is None:
        return None
    signals.outlive_reload()
    while True:
        try:
            return Tls(files)
        except ConfigurationError as error:
            _log.error("tls_files_refused", problem=error.message, kept="the door closed")
        if signals.asked:
            sys.exit(0)
        time.sleep(_TRY_TLS_EVERY_S)


def _map_clearings(path: Path) -> SharedClearings:
    with path.open("r+b") as file:
        return SharedClearings(memoryview(mmap.mmap(file.fileno(), 0)))


def _end_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)  # not through a buffer, whose lock would be in the way at exit
    os._exit(0)


if __name__ == "__main__":
    main()
