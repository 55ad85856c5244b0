"""Several processes answer HTTP on one port, and share one process per model.

    first process ── Supervisor ── HostKeeper ── engine hosts
                       └─ http_worker × N, each asks the keeper for its models

A worker that dies is started again. Signals go on to the workers, which drain as a single process would.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from voiceforge.infra.enginehost.keeper import HostKeeper
from voiceforge.infra.enginehost.remote_keeper import KeeperServer
from voiceforge.main.early_signals import RELOAD_SIGNAL, STOP_SIGNALS, EarlySignals
from voiceforge.main.nursery import Adopted, hatched
from voiceforge.main.settings import Settings
from voiceforge.telemetry.logger import Logger
from voiceforge.telemetry.metrics import SHARED_FOLDER_VARIABLE, forget_process

_COMMAND = (sys.executable, "-P", "-m", "voiceforge.main.http_worker")
_LOOK_EVERY_S = 0.2
_CLEARINGS = "clearings"
_CLEARINGS_BYTES = 4096
_CLOSING_S = 10.0
"""Beyond the grace that requests get: then workers are killed."""
_YOUNG_S = 10.0
_MOST_YOUNG_DEATHS = 5
"""In a row: what kills workers as soon as they live will not go away by itself."""

_log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerOrder:
    """What a worker is told on a pipe, which is its lifeline after that.

    listener_fd, up_fd: descriptors it inherits: the socket to accept from, and a pipe that it closes once
        it does.
    keeper: where to ask for models. audio_host: likewise for members that read audio. metrics: the folder
        all workers share. clearings: a file they all map, to tell each other what was cleared from their
        caches.
    """

    settings: Settings
    version: str
    name: str
    listener_fd: int
    up_fd: int
    keeper: Path
    audio_host: Path | None
    metrics: Path
    clearings: Path
    wyoming_fd: int | None = None


@dataclass(eq=False, slots=True)
class _Worker:
    """lifeline: it ends when that does."""

    name: str
    process: subprocess.Popen[bytes] | Adopted
    lifeline: IO[bytes]
    started_at: float = field(default_factory=time.monotonic)


class Supervisor:
    def __init__(
        self,
        settings: Settings,
        version: str,
        listener: socket.socket,
        keeper: HostKeeper,
        audio_host: Path | None,
        wyoming: socket.socket | None = None,
    ) -> None:
        self._settings = settings
        self._version = version
        self._listener = listener
        self._keeper = keeper
        self._audio_host = audio_host
        self._wyoming = wyoming
        self._workers: list[_Worker] = []
        self._signals: list[int] = []
        self._young_deaths = 0
        self._reload_asked = False

    def run(self, signals: EarlySignals, on_listening: Callable[[], None]) -> int:
        """Returns the exit code of the server: 0 where all workers ended well."""
        with tempfile.TemporaryDirectory(prefix="voiceforge-") as folder:
            address = Path(folder) / "keeper"
            metrics = Path(folder) / "metrics"
            metrics.mkdir()
            (Path(folder) / _CLEARINGS).write_bytes(bytes(_CLEARINGS_BYTES))
            server = KeeperServer(self._keeper, address)
            for number in STOP_SIGNALS:
                signal.signal(number, self._on_signal)
            if self._settings.server.tls_certificate is not None:
                signal.signal(RELOAD_SIGNAL, self._on_reload)
            try:
                if signals.asked:
                    return 0
                return self._supervise(address, metrics, on_listening)
            finally:
                for worker in self._workers:
                    worker.process.kill()
                    worker.process.wait()
                server.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _on_reload(self, number: int, frame: FrameType | None) -> None:
        """Handed on when the loop comes round: a worker may be in the midst of being started."""
        self._reload_asked = True

    def _hand_on_reload(self) -> None:
        if self._reload_asked:
            self._reload_asked = False
            for worker in self._workers:
                # A younger one may not listen yet, and has just read what it would read again.
                if time.monotonic() - worker.started_at > _YOUNG_S:
                    worker.process.send_signal(RELOAD_SIGNAL)

    def _supervise(self, address: Path, metrics: Path, on_listening: Callable[[], None]) -> int:
        answering = threading.Event()
        names = [f"worker-{number}" for number in range(1, self._settings.server.workers + 1)]
        self._workers += self._start_together(names, address, metrics, answering)
        for name in names[len(self._workers) :]:
            self._workers.append(self._start(name, address, metrics, answering))
        announced = False
        while not self._signals:
            if not announced and answering.is_set():
                announced = True
                on_listening()
            for worker in [w for w in self._workers if w.process.poll() is not None]:
                self._bury(worker, metrics)
                if self._young_deaths >= _MOST_YOUNG_DEATHS:
                    _log.error("giving up: workers end as soon as they are started")
                    self._signals.append(signal.SIGTERM)
                    self._stop()
                    return 1
                self._workers.append(self._start(worker.name, address, metrics, answering))
            self._hand_on_reload()
            time.sleep(_LOOK_EVERY_S)
        return self._stop()

    def _sockets(self) -> list[int]:
        return [listener.fileno() for listener in (self._listener, self._wyoming) if listener is not None]

    def _start_together(
        self, names: Sequence[str], address: Path, metrics: Path, answering: threading.Event
    ) -> list[_Worker]:
        """They share the memory of what they imported; those that take their places later do not."""
        up, up_inside = os.pipe()
        pipes = [os.pipe() for _ in names]
        processes = hatched(
            _COMMAND,
            [order for order, _ in pipes],
            inherited=[*self._sockets(), up_inside],
            env=_environment(metrics),
        )
        workers = []
        for order, _ in pipes:
            os.close(order)
        for _, lifeline in pipes[len(processes) :]:
            os.close(lifeline)
        for name, process, (_, lifeline) in zip(names, processes, pipes, strict=False):
            workers.append(_Worker(name, process, os.fdopen(lifeline, "wb", buffering=0)))
            self._tell(workers[-1], up_inside, address, metrics)
        os.close(up_inside)
        threading.Thread(target=_wait_up, args=(up, answering), name="workers-up", daemon=True).start()
        return workers

    def _start(self, name: str, address: Path, metrics: Path, answering: threading.Event) -> _Worker:
        up, up_inside = os.pipe()
        process = subprocess.Popen(  # noqa: S603
            _COMMAND,
            stdin=subprocess.PIPE,
            bufsize=0,
            pass_fds=[*self._sockets(), up_inside],
            env=_environment(metrics),
            process_group=0,  # a terminal's Ctrl-C shall reach it once, through us
        )
        assert process.stdin is not None
        worker = _Worker(name, process, process.stdin)
        self._tell(worker, up_inside, address, metrics)
        os.close(up_inside)
        threading.Thread(target=_wait_up, args=(up, answering), name=f"{name}-up", daemon=True).start()
        return worker

    def _tell(self, worker: _Worker, up_fd: int, address: Path, metrics: Path) -> None:
        order = WorkerOrder(
            settings=self._settings,
            version=self._version,
            name=worker.name,
            listener_fd=self._listener.fileno(),
            up_fd=up_fd,
            keeper=address,
            audio_host=self._audio_host,
            metrics=metrics,
            clearings=metrics.parent / _CLEARINGS,
            wyoming_fd=None if self._wyoming is None else self._wyoming.fileno(),
        )
        with suppress(BrokenPipeError):  # it has ended already, and is missed soon
            worker.lifeline.write(pickle.dumps(order))
        _log.info("worker started", worker=worker.name, pid=worker.process.pid)

    def _bury(self, worker: _Worker, metrics: Path) -> None:
        self._workers.remove(worker)
        worker.lifeline.close()
        age_s = time.monotonic() - worker.started_at
        self._young_deaths = self._young_deaths + 1 if age_s < _YOUNG_S else 0
        _log.error("worker ended", worker=worker.name, exit_code=worker.process.returncode)
        forget_process(worker.process.pid, metrics)
        self._keeper.release_all(worker.name)

    def _stop(self) -> int:
        """Hand the signals on, the second one too; kill whoever outstays the grace."""
        deadline = time.monotonic() + self._settings.server.grace_s + _CLOSING_S
        handed_on = 0
        while any(worker.process.poll() is None for worker in self._workers):
            for number in self._signals[handed_on:]:
                for worker in self._workers:
                    worker.process.send_signal(number)
            handed_on = len(self._signals)
            if time.monotonic() > deadline:
                break
            time.sleep(_LOOK_EVERY_S)
        return max((self._exit_code(worker) for worker in self._workers), default=0)

    def _exit_code(self, worker: _Worker) -> int:
        """0 too where it was still starting, and had nothing to finish."""
        code = worker.process.poll() or 0
        return 0 if -code in self._signals else code


def _environment(metrics: Path) -> dict[str, str]:
    return {**os.environ, SHARED_FOLDER_VARIABLE: str(metrics)}


def _wait_up(descriptor: int, answering: threading.Event) -> None:
    """Each worker that answers writes a byte; one that ends before closes the pipe without."""
    with os.fdopen(descriptor, "rb") as pipe:
        while pipe.read(1):
            answering.set()
