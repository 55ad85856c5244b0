"""One of several processes that answer HTTP for one server. Started by the supervisor, never by hand."""

from __future__ import annotations

import asyncio
import mmap
import os
import pickle
import socket
import sys
import threading
from pathlib import Path

from voiceforge.infra.cache.clearings import SharedClearings
from voiceforge.infra.enginehost.remote_keeper import RemoteHosts
from voiceforge.main.build import build
from voiceforge.main.early_signals import EarlySignals
from voiceforge.main.http_server import HttpServer
from voiceforge.main.jobs import build_jobs
from voiceforge.main.memory import return_large_blocks
from voiceforge.main.supervisor import WorkerOrder
from voiceforge.telemetry.logs import configure_logging
from voiceforge.telemetry.metrics import Metrics


def main() -> None:
    signals = EarlySignals()
    signals.take()
    order: WorkerOrder = pickle.load(sys.stdin.buffer)  # noqa: S301  # from our own parent
    threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()
    configure_logging(order.settings.log.level, order.settings.log.format)
    return_large_blocks()
    signals.hold()
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
    server = HttpServer(order.settings, services, order.version, build_jobs(order.settings, services))
    listener = socket.socket(fileno=order.listener_fd)

    def up() -> None:
        os.write(order.up_fd, b"!")
        os.close(order.up_fd)

    asyncio.run(server.run(listener, up, signals))
    sys.exit(server.exit_code)


def _map_clearings(path: Path) -> SharedClearings:
    with path.open("r+b") as file:
        return SharedClearings(memoryview(mmap.mmap(file.fileno(), 0)))


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through its buffer, whose lock would be in the way at exit
    os._exit(0)


if __name__ == "__main__":
    main()
