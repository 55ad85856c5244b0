"""An upload outlives the server: killed in the middle of a piece, it goes on where the offset says."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from tusclient.client import TusClient

MIB = 1 << 20
WAIT_S = 60
CONTENT = bytes(range(251)) * (24 * MIB // 251)
TUS = {"Tus-Resumable": "1.0.0"}


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("VoiceForge listens on http://127.0.0.1:"), line
    return line.split()[3]


def wait_until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_kill_9_in_the_middle(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    recording = tmp_path / "long.wav"
    recording.write_bytes(CONTENT)
    process = start("serve", "--port", "0")
    url = address(process)
    length = {"Upload-Length": str(len(CONTENT))}
    wait_until(
        lambda: httpx.post(f"{url}/v1/uploads", headers=TUS | length, timeout=WAIT_S).status_code == 201
    )
    path = httpx.post(f"{url}/v1/uploads", headers=TUS | length, timeout=WAIT_S).headers["Location"]
    stored = tmp_path / "data" / path.removeprefix("/v1/")

    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port)) as line:
        line.sendall(
            f"PATCH {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n"
            "Content-Type: application/offset+octet-stream\r\n"
            f"Content-Length: {len(CONTENT)}\r\n\r\n".encode()
        )
        line.sendall(CONTENT[: 13 * MIB])
        wait_until(lambda: stored.exists() and stored.stat().st_size >= 12 * MIB)
        process.kill()
    process.wait()
    # What else such a server leaves behind, a day and a bit later.
    leftover, stray = tmp_path / "data" / "tmp" / "upload-x.part", stored.with_name("up_forgotten")
    for path_left in (leftover, stray):
        path_left.write_bytes(b"x")
        os.utime(path_left, (time.time() - 90_000, time.time() - 90_000))

    url = address(start("serve", "--port", "0"))
    wait_until(lambda: httpx.head(f"{url}{path}", headers=TUS, timeout=WAIT_S).status_code == 200)
    uploader = TusClient(f"{url}/v1/uploads").uploader(str(recording), url=f"{url}{path}")
    assert 4 * MIB <= uploader.offset <= 13 * MIB  # at most 8 MiB were lost
    uploader.upload()
    assert stored.read_bytes() == CONTENT
    wait_until(lambda: not leftover.exists() and not stray.exists())
