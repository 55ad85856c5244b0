"""Copied while the server works on jobs, restored elsewhere, finished there."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx

Completed = subprocess.CompletedProcess[str]


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("VoiceForge listens on http://127.0.0.1:"), line
    return line.split()[3]


def wait_until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_copy_of_a_working_server_goes_on_elsewhere(
    start: Callable[..., subprocess.Popen[str]],
    voiceforge: Callable[..., Completed],
    clips: dict[str, Path],
    tmp_path: Path,
) -> None:
    # The jobs of a worker that still lives wait in the copy until its lease ends.
    quick = {"VOICEFORGE_JOBS__LEASE_S": "2", "VOICEFORGE_JOBS__HEARTBEAT_S": "0.5"}
    url = address(start("serve", "--port", "0", settings=quick))
    wait_until(lambda: httpx.get(f"{url}/health/ready").status_code == 200)

    def submit(number: int) -> str:
        reply = httpx.post(
            f"{url}/v1/transcriptions",
            params={"mode": "async", "padding_ms": str(200 + number)},
            content=clips["two_cities"].read_bytes(),
        )
        assert reply.status_code == 202, reply.text
        return str(reply.json()["id"])

    wait_until(lambda: httpx.get(f"{url}/v1/transcriptions").status_code == 200)
    ids = [submit(number) for number in range(3)]
    wait_until(lambda: httpx.get(f"{url}/v1/transcriptions/{ids[0]}").json()["status"] == "running")
    copied = voiceforge("backup", tmp_path / "copy.tar")
    assert (copied.returncode, copied.stderr) == (0, "")
    assert "1 recordings" in copied.stdout
    again = voiceforge("backup", tmp_path / "copy.tar")
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1

    elsewhere = {"VOICEFORGE_DATA_DIR": str(tmp_path / "elsewhere")}
    assert voiceforge("restore", tmp_path / "copy.tar", settings=elsewhere).returncode == 0
    refused = voiceforge("restore", tmp_path / "copy.tar", settings=elsewhere)
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    other = address(start("serve", "--port", "0", settings=elsewhere | quick))

    def all_done(at: str) -> bool:
        replies = [httpx.get(f"{at}/v1/transcriptions/{job_id}") for job_id in ids]
        return all(reply.status_code == 200 and reply.json()["status"] == "completed" for reply in replies)

    wait_until(lambda: all_done(other))
    wait_until(lambda: all_done(url))
    for job_id in ids:
        texts = {httpx.get(f"{at}/v1/transcriptions/{job_id}").json()["text"] for at in (url, other)}
        assert len(texts) == 1
        assert texts != {""}


def test_other_stores_have_tools_of_their_own(voiceforge: Callable[..., Completed], tmp_path: Path) -> None:
    refused = voiceforge(
        "backup", tmp_path / "copy", settings={"VOICEFORGE_DATABASE__URL": "postgresql://db.example/x"}
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith("voiceforge: database.url is set")
