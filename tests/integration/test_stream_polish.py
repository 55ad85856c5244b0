"""Live streams that are heard again and kept, over real sockets and on both databases."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest
from pydantic import BaseModel
from websockets.sync.client import ClientConnection, connect

from voiceforge.api.http.config import HttpConfig
from voiceforge.api.native.stream_schemas import SERVER_MESSAGES
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.fake_engine import says_by_length
from voiceforge.testing.job_server import JobServer, job_server
from voiceforge.testing.postgres_server import PostgresServer

WAIT_S = 30
BYTES_PER_S = 32_000
FRAME = 3_200
MODELS: dict[str, type[BaseModel]] = {
    model.model_json_schema()["properties"]["type"]["const"]: model for model in SERVER_MESSAGES
}
SENTENCES = 6
Dial = Callable[..., ClientConnection]


def _samples() -> bytes:
    with open_audio(sample_recordings()[0]) as stream:
        whole = np.concatenate([block[0] for block in stream.blocks()])
    return (whole * 32_767).astype("<i2").tobytes()


SPOKEN = _samples()
"""Ten seconds, six short sentences."""


@pytest.fixture(scope="module")
def vad() -> SileroModel:
    return SileroModel()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, vad: SileroModel
) -> Iterator[JobServer]:
    folder = tmp_path_factory.mktemp("polish")
    url = f"sqlite:///{folder}/jobs.db"
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.new_database()
    config = HttpConfig(temp_dir=folder, version="1.2.3", ping_interval_s=0.05, stream_resume_s=0.2)
    with job_server(url, folder, vad=vad, script=says_by_length(), config=config) as made:
        yield made


@pytest.fixture
def client(server: JobServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=WAIT_S) as made:
        yield made
        for one in made.get("/v1/transcriptions").json()["data"]:
            made.delete(f"/v1/transcriptions/{one['id']}")


@pytest.fixture
def dial(server: JobServer) -> Iterator[Dial]:
    with contextlib.ExitStack() as sockets:

        def opened(**query: Any) -> ClientConnection:
            url = f"{server.url.replace('http', 'ws', 1)}/v1/stream?{urlencode(query, doseq=True)}"
            return sockets.enter_context(connect(url, max_size=None, compression=None))

        yield opened


def send(socket: ClientConnection, audio: bytes = SPOKEN) -> None:
    for first in range(0, len(audio), FRAME):
        socket.send(audio[first : first + FRAME])


def say(socket: ClientConnection, **message: Any) -> None:
    socket.send(json.dumps(message))


def told(socket: ClientConnection, until: str = "closed") -> list[dict[str, Any]]:
    found = []
    while True:
        message = json.loads(socket.recv(timeout=WAIT_S))
        MODELS[message["type"]].model_validate(message)
        found.append(message)
        if message["type"] == until:
            return found


def of(kind: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [message for message in messages if message["type"] == kind]


def completed(client: httpx.Client, transcription_id: str) -> dict[str, Any]:
    until = time.monotonic() + WAIT_S
    while True:
        reply = client.get(f"/v1/transcriptions/{transcription_id}")
        if reply.status_code == 200 and reply.json()["status"] == "completed":
            return dict(reply.json())
        assert reply.status_code in (200, 404)
        assert reply.status_code == 404 or reply.json()["status"] in ("queued", "running"), reply.text
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_polished_stream_is_heard_again_and_becomes_a_transcription(server, client, dial) -> None:
    socket = dial(polish="true")
    send(socket)
    say(socket, type="close")
    messages = told(socket)
    finals, revisions = of("final", messages), of("revision", messages)
    assert len(finals) == SENTENCES
    assert revisions[0]["first"] == 0
    assert revisions[-1]["last"] == finals[-1]["utterance"]
    for before, after in itertools.pairwise(revisions):
        assert after["first"] == before["last"] + 1
    for revision in revisions:
        first, last = finals[revision["first"]], finals[revision["last"]]
        assert revision["segments"][0]["start"] == pytest.approx(first["start"], abs=0.4)
        assert revision["segments"][-1]["end"] == pytest.approx(last["end"], abs=0.4)
        assert revision["text"] == " ".join(segment["text"] for segment in revision["segments"])

    kept = completed(client, messages[-1]["transcription_id"])
    assert kept["duration"] == pytest.approx(len(SPOKEN) / BYTES_PER_S, abs=0.01)
    assert kept["text"]
    assert kept["filename"] == f"{messages[0]['id']}.wav"
    assert list((server.temp_dir / "streams").iterdir()) == []
