"""`voiceforge serve` from its start to its end."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

Start = Callable[..., subprocess.Popen[str]]
Completed = subprocess.CompletedProcess[str]


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("VoiceForge listens on http://127.0.0.1:"), line
    return line.split()[3]


def test_it_answers_transcribes_and_finishes_what_it_began(start: Start, clips: dict[str, Path]) -> None:
    process = start("serve", "--port", "0")
    url = address(process)
    assert httpx.get(f"{url}/health/live").status_code == 200
    wait_until(lambda: httpx.get(f"{url}/health/ready").status_code == 200)
    upload = SlowUpload(url, clips["beckett"])

    process.send_signal(signal.SIGTERM)
    wait_until(lambda: httpx.get(f"{url}/health/ready").status_code == 503)
    assert httpx.get(f"{url}/health/live").status_code == 200
    refused = httpx.post(f"{url}/v1/transcriptions", content=b"too late")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
    assert process.poll() is None

    answer = upload.finish()
    assert answer is not None
    assert answer.status_code == 200
    assert "again" in answer.json()["text"].lower()
    assert process.wait(30) == 0


def test_the_grace_is_not_endless(start: Start, clips: dict[str, Path], tmp_path: Path) -> None:
    process = start("serve", "--port", "0", settings={"VOICEFORGE_SERVER__GRACE_S": "0.2"})
    upload = SlowUpload(address(process), clips["beckett"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    answer = upload.finish()
    assert answer is None or answer.status_code == 503
    assert list((tmp_path / "data" / "tmp").iterdir()) == []


def test_a_second_signal_ends_it_at_once(start: Start, clips: dict[str, Path], tmp_path: Path) -> None:
    process = start("serve", "--port", "0", settings={"VOICEFORGE_SERVER__GRACE_S": "600"})
    url = address(process)
    upload = SlowUpload(url, clips["beckett"])
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: httpx.get(f"{url}/health/ready").status_code == 503)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    answer = upload.finish()
    assert answer is None or answer.status_code == 503
    assert list((tmp_path / "data" / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--host", "0.0.0.0"), "set api_key or auth.required = true, or server.insecure = true"),
        (("--model", "nope"), "no model 'nope'"),
        (("--config", "missing.toml"), "missing.toml: cannot be read"),
        (("--port", "99999"), "99999 is not in the range"),
    ],
)
def test_what_cannot_work_is_refused_at_once(
    voiceforge: Callable[..., Completed], arguments: tuple[str, ...], complaint: str
) -> None:
    done = voiceforge("serve", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert complaint in line


def test_a_taken_port(start: Start, voiceforge: Callable[..., Completed]) -> None:
    url = address(start("serve", "--port", "0"))
    done = voiceforge("serve", "--port", url.rsplit(":", 1)[1])
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "in use" in line


class SlowUpload:
    """A request that the server has begun to work on, and whose second half is sent by `finish`."""

    def __init__(self, url: str, path: Path) -> None:
        self._url = url
        self._content = path.read_bytes()
        self._go_on = threading.Event()
        self._answer: httpx.Response | None = None
        self._thread = threading.Thread(target=self._send)
        self._thread.start()
        wait_until(lambda: native_requests(url) >= 2)  # this one, and the question itself

    def finish(self) -> httpx.Response | None:
        """The answer; None if the connection was cut before there was one."""
        self._go_on.set()
        self._thread.join(60)
        return self._answer

    def _send(self) -> None:
        with contextlib.suppress(httpx.TransportError):
            self._answer = httpx.post(f"{self._url}/v1/transcriptions", content=self._parts(), timeout=60)

    def _parts(self) -> Iterator[bytes]:
        half = len(self._content) // 2
        yield self._content[:half]
        self._go_on.wait(60)
        yield self._content[half:]


def native_requests(url: str) -> float:
    gauge = re.search(
        r'^voiceforge_requests_in_flight\{surface="native"\} (\S+)',
        httpx.get(f"{url}/metrics").text,
        re.MULTILINE,
    )
    return float(gauge[1]) if gauge else 0.0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
