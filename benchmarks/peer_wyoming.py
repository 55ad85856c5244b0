"""wyoming-faster-whisper: installed into an environment of its own, and started on a model."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from processes import Failed

PACKAGE = "wyoming-faster-whisper==3.8.1"
_CLIENT = Path(__file__).with_name("wyoming_client.py")


@dataclass(frozen=True, slots=True)
class Peer:
    """A started server, and the command of a client that loads it (see wyoming_client.py)."""

    pid: int
    client: list[str]


def installed(folder: Path) -> Path:
    """The Python of an environment with the peer in `folder`; made on first use."""
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp = folder / "installed"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == PACKAGE:
        return python
    print(f"installing {PACKAGE} into {folder.name}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", "-q", "install", PACKAGE], check=True
    )
    stamp.write_text(PACKAGE, encoding="utf-8")
    return python


@contextmanager
def peer(folder: Path, *, model: Path, recording: Path, threads: int, beam: int) -> Iterator[Peer]:
    """The peer's server on a free port while the block runs, once it has transcribed `recording`.

    Raises:
        Failed: it ends, or does not answer.
    """
    python = installed(folder)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        uri = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    command = [str(python), "-m", "wyoming_faster_whisper", "--uri", uri, "--model", str(model)]
    command += ["--data-dir", str(folder), "--stt-library", "faster-whisper", "--local-files-only"]
    command += ["--language", "en", "--compute-type", "int8"]
    command += ["--cpu-threads", str(threads), "--beam-size", str(beam)]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait(process, uri, timeout_s=120.0)
        yield Peer(process.pid, [str(python), str(_CLIENT), uri, str(recording)])
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], uri: str, timeout_s: float) -> None:
    host, _, port = uri.removeprefix("tcp://").partition(":")
    deadline = time.monotonic() + timeout_s
    while True:
        if process.poll() is not None:
            raise Failed(f"the peer ended with {process.returncode}")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError:
            if time.monotonic() > deadline:
                raise Failed(f"the peer does not listen after {timeout_s:g} s") from None
            time.sleep(0.1)
        else:
            return
