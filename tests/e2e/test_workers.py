"""`voiceforge serve --workers N`: several processes on one port, one process for the model."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from voiceforge.testing.processes import wait_until_gone

Start = Callable[..., subprocess.Popen[str]]


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("VoiceForge listens on http://127.0.0.1:"), line
    return line.split()[3]


def children(process: subprocess.Popen[str], module: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if f"voiceforge.main.{module}" in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def server(start: Start) -> subprocess.Popen[str]:
    return start("serve", "--port", "0", "--workers", "2")


@pytest.fixture
def url(server: subprocess.Popen[str]) -> str:
    url = address(server)
    wait_until(lambda: len(children(server, "http_worker")) == 2 and ready(url))
    return url


def transcribe(url: str, clip: Path) -> str:
    """Anew, though the same was asked before."""
    answer = httpx.post(
        f"{url}/v1/transcriptions",
        content=clip.read_bytes(),
        headers={"Cache-Control": "no-store"},
        timeout=200,
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["text"])


def counted(url: str, name: str) -> float:
    lines = re.findall(rf"^voiceforge_{name}\S* (\S+)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    return sum(map(float, lines))


def test_they_share_the_model_add_up_their_figures_and_drain(
    server: subprocess.Popen[str], url: str, clips: dict[str, Path]
) -> None:
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda _: transcribe(url, clips["beckett"]), range(16)))
    assert len(set(texts)) == 1
    assert "try again" in texts[0]
    assert len(children(server, "engine_host")) == 1
    # Whichever worker answers, it knows what the other one did.
    assert {counted(url, "transcription_duration_seconds_count") for _ in range(6)} == {16.0}
    assert counted(url, "engine_host_starts_total") <= 1.0
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0


def test_a_worker_that_is_killed_is_replaced_and_nobody_else_notices(
    server: subprocess.Popen[str], url: str, clips: dict[str, Path]
) -> None:
    engine, workers = children(server, "engine_host"), children(server, "http_worker")
    workers[0].kill()
    wait_until(
        lambda: (
            len(children(server, "http_worker")) == 2 and workers[0] not in children(server, "http_worker")
        )
    )
    wait_until(lambda: ready(url))
    assert "try again" in transcribe(url, clips["beckett"])
    assert workers[1].is_running()
    assert children(server, "engine_host") == engine


def test_a_model_that_is_killed_comes_back_for_all_of_them(
    server: subprocess.Popen[str], url: str, clips: dict[str, Path]
) -> None:
    (before,) = children(server, "engine_host")
    with ThreadPoolExecutor(8) as pool:
        coming = [pool.submit(transcribe, url, clips["two_cities"]) for _ in range(8)]
        wait_until(lambda: counted(url, "batch_rows_count") > 0)
        before.kill()
        assert len({future.result() for future in coming}) == 1
    (after,) = children(server, "engine_host")
    assert after.pid != before.pid


def test_decoders_that_are_killed_come_back_and_everybody_is_answered(
    server: subprocess.Popen[str], url: str, clips: dict[str, Path]
) -> None:
    (host,) = (p for p in children(server, "audio_host") if p.ppid() == server.pid)
    with ThreadPoolExecutor(8) as pool:
        coming = [pool.submit(transcribe, url, clips["two_cities"]) for _ in range(8)]
        wait_until(lambda: len(host.children()) > 1)
        members = host.children()
        host.kill()
        assert len({future.result() for future in coming}) == 1
    wait_until_gone([host, *members])
    assert len({p.pid for p in children(server, "audio_host") if p.ppid() == server.pid}) == 1


def test_a_model_is_swapped_without_a_failed_request(
    server: subprocess.Popen[str], url: str, clips: dict[str, Path]
) -> None:
    (before,) = children(server, "engine_host")
    with ThreadPoolExecutor(4) as pool:
        coming = [pool.submit(transcribe, url, clips["two_cities"]) for _ in range(8)]
        reloaded = httpx.post(f"{url}/v1/models/moonshine-tiny-en/reload", timeout=200)
        assert reloaded.json() == {"id": "moonshine-tiny-en", "revision": "0.0.49"}
        assert len({future.result() for future in coming}) == 1
    (after,) = children(server, "engine_host")
    assert after.pid != before.pid
    assert httpx.post(f"{url}/v1/models/nope/reload").status_code == 404


def test_no_process_outlives_a_server_that_was_killed(server: subprocess.Popen[str], url: str) -> None:
    family = psutil.Process(server.pid).children(recursive=True)
    assert len(family) >= 3
    server.kill()
    wait_until_gone(family)


def test_clearing_the_cache_reaches_every_worker(url: str, clips: dict[str, Path]) -> None:
    recording = clips["beckett"].read_bytes()

    def ask() -> str:
        answer = httpx.post(f"{url}/v1/transcriptions", content=recording, timeout=200)
        return answer.headers["x-cache"]

    def entries() -> int:
        return int(httpx.get(f"{url}/stats").json()["cache"]["entries"])

    # Which worker answers is the system's choice: until both have it, some ask one that has not.
    wait_until(lambda: ask() == "hit" and entries() == 2)
    assert {ask() for _ in range(8)} == {"hit"}
    assert httpx.delete(f"{url}/cache").json() == {"removed": 1}
    cleared = [ask() for _ in range(12)]
    assert 1 <= cleared.count("miss") <= 2
    assert cleared[0] == "miss"
