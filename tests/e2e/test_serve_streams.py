"""`voiceforge serve` with live streams open, told to stop."""

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
LONGEST_WAIT_S = 60
KEY = {"VOICEFORGE_API_KEY": "right-key"}
HEADERS = {"Authorization": "Bearer right-key"}


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().split()[3]


def wait_ready(url: str) -> None:
    until = time.monotonic() + LONGEST_WAIT_S
    while httpx.get(f"{url}/health/ready").status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.1)


def samples(clip: Path) -> bytes:
    with open_audio(clip) as stream:
        whole = np.concatenate([block[0] for block in stream.blocks()])
    return (whole * 32_767).astype("<i2").tobytes()


def told_until_closed(socket: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """What came, and the code with which it was closed."""
    told = []
    while True:
        try:
            told.append(json.loads(socket.recv(timeout=LONGEST_WAIT_S)))
        except ConnectionClosed as closed:
            return told, 1006 if closed.rcvd is None else closed.rcvd.code


@pytest.mark.parametrize("workers", ["1", "2"])
def test_streams_have_their_last_words_told_before_the_server_stops(
    start: Start, clips: dict[str, Path], opened: ExitStack, workers: str
) -> None:
    process = start("serve", "--port", "0", settings={**KEY, "VOICEFORGE_SERVER__WORKERS": workers})
    url = address(process)
    wait_ready(url)
    live = url.replace("http", "ws") + "/v1/stream?encoding=s16le&sample_rate=16000"
    sockets = [opened.enter_context(connect(live, additional_headers=HEADERS)) for _ in range(3)]
    for socket in sockets:
        socket.send(samples(clips["beckett"])[:28_800])  # into the first sentence
        while json.loads(socket.recv(timeout=LONGEST_WAIT_S))["type"] != "speech_started":
            continue

    process.send_signal(signal.SIGTERM)
    for socket in sockets:
        told, code = told_until_closed(socket)
        finals = [event for event in told if event["type"] == "final"]
        assert [final["text"].lower().split()[0] for final in finals] == ["ever"]
        assert code == 1012
    assert process.wait(LONGEST_WAIT_S) == 0
