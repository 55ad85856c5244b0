"""The disk fills up under a server: whoever is refused is told so, nothing half written stays, and with room
again everything goes on.

The data folder is a small file system in memory that only the server and its children see.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

MIB = 1 << 20
SIZE_BYTES = 16 * MIB
TUS = {"Tus-Resumable": "1.0.0"}
PIECE = TUS | {"Content-Type": "application/offset+octet-stream"}
JOBS = "/v1/transcriptions"
WAIT_S = 60
# For whoever is root as for whoever may make a namespace in which they are.
UNSHARE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
MOUNT = f'mount -t tmpfs -o size={SIZE_BYTES} none "$0" && exec "$@"'


@pytest.fixture
def program(program: list[str], tmp_path: Path) -> list[str]:
    data = tmp_path / "data"
    data.mkdir()
    within = [*UNSHARE, "sh", "-c", MOUNT, str(data)]
    if shutil.which("unshare") is None or subprocess.run([*within, "true"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    return [*within, *program]


@dataclass
class Server:
    """folder: its data as it sees it."""

    client: httpx.Client
    folder: Path

    def fill(self, free_bytes: int = 0) -> None:
        """Until only so much is free."""
        free = os.statvfs(self.folder)
        some = free.f_bavail * free.f_frsize - free_bytes
        with (self.folder / "ballast").open("ab") as ballast:
            while some > 0:
                some -= ballast.write(bytes(min(some, MIB)))

    def make_room(self) -> None:
        (self.folder / "ballast").unlink()

    def submit(self, audio: bytes, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.client.post(JOBS, files={"file": audio}, data={"mode": "async"}, headers=headers)

    def job_ids(self) -> list[str]:
        return [job["id"] for job in self.client.get(JOBS).json()["data"]]

    def text_of(self, job_id: str) -> str:
        """Once it is done; the stream of its events ends with it."""
        self.client.get(f"{JOBS}/{job_id}/events").raise_for_status()
        job = self.client.get(f"{JOBS}/{job_id}").json()
        assert job["status"] == "completed", job
        return str(job["text"])

    def half_written(self) -> list[Path]:
        """Files that belong to no finished request."""
        return [*self.folder.glob("tmp/*"), *self.folder.glob("blobs/.partial/*")]


@pytest.fixture
def server(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> Iterator[Server]:
    process = start("serve", "--port", "0")
    assert process.stdout is not None
    url = process.stdout.readline().split()[3]
    with httpx.Client(base_url=url, timeout=WAIT_S) as client:
        while client.get(JOBS).status_code != 200:
            time.sleep(0.05)
        yield Server(client, Path(f"/proc/{process.pid}/root{tmp_path / 'data'}"))


def refused(reply: httpx.Response) -> dict[str, Any]:
    assert reply.status_code == 507, reply.text
    error = reply.json()["error"]
    assert (error["kind"], error["code"], error["retryable"]) == ("storage_full", "storage_full", True)
    assert "/" not in error["message"]
    return dict(error)


def wav_of(samples_bytes: int) -> bytes:
    """Silence."""
    sizes = [(36 + samples_bytes).to_bytes(4, "little"), samples_bytes.to_bytes(4, "little")]
    form = bytes.fromhex("666d7420 10000000 0100 0100 803e0000 007d0000 0200 1000 64617461")
    return b"RIFF" + sizes[0] + b"WAVE" + form + sizes[1] + bytes(samples_bytes)


def test_a_disk_that_fills_up_loses_nothing_and_takes_nothing_by_halves(
    server: Server, clips: dict[str, Path]
) -> None:
    clip, large = clips["beckett"].read_bytes(), wav_of(6 * MIB)
    first = server.submit(clip).json()["id"]
    text = server.text_of(first)

    # It ends while an upload arrives, and while one that lies in memory is written into the store.
    server.fill(free_bytes=2 * MIB)
    refused(server.submit(large, key="large"))
    assert server.half_written() == []
    server.fill()
    other = clip[:-2000]  # what has the same content needs no room
    refused(server.submit(other, key="small"))
    assert server.half_written() == []
    assert len(list(server.folder.glob("blobs/audio/*"))) == 1
    assert server.job_ids() == [first]

    # What needs no disk goes on: one that is answered at once, what is there already, and those who ask.
    assert server.client.post(JOBS, files={"file": other}).json()["text"]
    assert server.text_of(first) == text
    checks = {check["name"]: check["status"] for check in server.client.get("/health").json()["checks"]}
    assert checks["disk"] == "degraded"

    # An upload in pieces goes on where it says it is.
    server.make_room()
    length = {"Upload-Length": str(len(large))}
    path = server.client.post("/v1/uploads", headers=TUS | length).headers["Location"]
    server.fill(free_bytes=2 * MIB)
    refused(server.client.patch(path, headers=PIECE | {"Upload-Offset": "0"}, content=large))
    server.make_room()
    offset = server.client.head(path, headers=TUS).headers["Upload-Offset"]
    assert 0 <= int(offset) < len(large)
    piece = PIECE | {"Upload-Offset": offset}
    assert server.client.patch(path, headers=piece, content=large[int(offset) :]).status_code == 204
    assert server.client.delete(path, headers=TUS).status_code == 204

    # The same requests once more, now that there is room: one job each.
    for key, audio in (("small", other), ("small", other), ("large", large)):
        reply = server.submit(audio, key)
        assert reply.status_code == 202, reply.text
        server.text_of(reply.json()["id"])
    assert len(server.job_ids()) == 3


def test_sqlite_on_a_full_disk_takes_a_job_whole_or_not_at_all(
    server: Server, clips: dict[str, Path], tmp_path: Path
) -> None:
    """The same recording again needs no room in the store: only rows are to be written, and of the jobs that
    are worked on meanwhile. Those wait, and go on."""
    clip = clips["beckett"].read_bytes()
    server.text_of(server.submit(clip).json()["id"])
    server.fill(free_bytes=256 * 1024)
    accepted = []
    for _ in range(500):
        reply = server.submit(clip)
        if reply.status_code != 202:
            break
        accepted.append(reply.json()["id"])
    refused(reply)
    assert accepted
    assert {server.client.get(f"{JOBS}/{job_id}").status_code for job_id in accepted} == {200}
    server.make_room()
    for job_id in accepted:
        assert server.text_of(job_id)
    server.text_of(server.submit(clip).json()["id"])
    # Nobody writes now. SQLite itself would look for the files where we have none.
    for name in ("voiceforge.db", "voiceforge.db-wal"):
        shutil.copy(server.folder / name, tmp_path / name)
    with sqlite3.connect(tmp_path / "voiceforge.db") as here:
        assert here.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert here.execute("PRAGMA foreign_key_check").fetchall() == []
        (count,) = here.execute("SELECT count(*) FROM transcriptions").fetchone()
    assert count == len(accepted) + 2
