"""`voiceforge serve` with polished streams, until it is stopped or killed; then started again."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from voiceforge.speech.audio.decode import open_audio

Start = Callable[..., subprocess.Popen[str]]
WAIT_S = 60
SAID = ("ever", "tried", "failed", "better")


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def spoken(clips: dict[str, Path]) -> bytes:
    with open_audio(clips["beckett"]) as stream:
        whole = np.concatenate([block[0] for block in stream.blocks()])
    return (whole * 32_767).astype("<i2").tobytes()


def serve(start: Start) -> tuple[subprocess.Popen[str], str]:
    process = start("serve", "--port", "0")
    assert process.stdout is not None
    url = process.stdout.readline().split()[3]
    until = time.monotonic() + WAIT_S
    while httpx.get(f"{url}/health/ready").status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.1)
    return process, url


def talk(stack: ExitStack, url: str, audio: bytes) -> ClientConnection:
    socket = stack.enter_context(connect(f"{url.replace('http', 'ws')}/v1/stream?polish=best"))
    for first in range(0, len(audio), 3_200):
        socket.send(audio[first : first + 3_200])
    return socket


def told(socket: ClientConnection, until: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while not found or found[-1]["type"] != until:
        try:
            found.append(json.loads(socket.recv(timeout=WAIT_S)))
        except ConnectionClosed:
            break
    return found


def completed(url: str) -> list[dict[str, Any]]:
    """Every transcription there is, once there is one and all are over."""
    until = time.monotonic() + WAIT_S
    while True:
        jobs = httpx.get(f"{url}/v1/transcriptions").json()["data"]
        if jobs and all(job["status"] == "completed" for job in jobs):
            return [httpx.get(f"{url}/v1/transcriptions/{job['id']}").json() for job in jobs]
        assert time.monotonic() < until, jobs
        time.sleep(0.2)


def test_the_command_line_has_a_recording_polished_and_shows_what_was_kept(
    start: Start, voiceforge: Callable[..., Any], clips: dict[str, Path]
) -> None:
    _, url = serve(start)
    here = {"VOICEFORGE_SERVER": url}
    done = voiceforge("stream", clips["beckett"], "--polish", "--json", settings=here)
    assert done.returncode == 0, done.stderr
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    revised = " ".join(one["text"] for one in messages if one["type"] == "revision").lower()
    assert all(word in revised for word in SAID)
    (kept,) = completed(url)
    assert kept["id"] == messages[-1]["transcription_id"]
    shown = voiceforge("jobs", "show", kept["id"], settings=here)
    assert all(word in shown.stdout.lower() for word in SAID)

    done = voiceforge("stream", clips["beckett"], "--polish", settings=here)
    assert "Kept: voiceforge jobs show tr_" in done.stderr


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_stream_whose_server_ends_becomes_a_transcription(
    start: Start, opened: ExitStack, spoken: bytes, tmp_path: Path, how: signal.Signals
) -> None:
    process, url = serve(start)
    socket = talk(opened, url, spoken[: len(spoken) // 2])
    stream_id = told(socket, "final")[0]["id"]
    process.send_signal(how)
    told(socket, "closed")
    process.wait(WAIT_S)

    _, url = serve(start)
    (kept,) = completed(url)
    assert kept["filename"] == f"{stream_id}.wav"
    assert kept["duration"] > 1.0
    assert "ever" in kept["text"].lower()
    assert list((tmp_path / "data" / "streams").iterdir()) == []
