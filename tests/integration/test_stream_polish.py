"""Live streams that are heard again and kept, over real sockets and on both databases."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest
from pydantic import BaseModel
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from voiceforge.api.http.config import HttpConfig
from voiceforge.api.native.stream_schemas import SERVER_MESSAGES
from voiceforge.errors import StorageFull, Unavailable
from voiceforge.infra.db.records import Retention
from voiceforge.services.access import OWNER
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


def test_the_document_is_told_of_found_and_erased_like_any_other(server, client, dial) -> None:
    socket = dial(polish="moonshine", language="en", keep_audio_s=60, keep_text_s=120)
    send(socket)
    say(socket, type="close")
    kept_as = told(socket)[-1]["transcription_id"]
    kept = completed(client, kept_as)
    job = server.run(server.house.jobs.show(OWNER, kept_as)).job
    assert job.retention == Retention(60.0, 120.0)
    events = client.get(f"/v1/transcriptions/{kept_as}/events").text
    assert "transcription.completed" in events
    word = kept["text"].split()[0]
    found = client.get("/v1/transcriptions/search", params={"q": word}).json()["data"]
    assert [one["id"] for one in found] == [kept_as]
    assert client.delete(f"/v1/transcriptions/{kept_as}").status_code == 204
    assert client.get(f"/v1/transcriptions/{kept_as}").status_code == 404
    assert server.blobs._held == {}


def test_without_the_wish_nothing_is_kept(server, client, dial) -> None:
    socket = dial()
    send(socket)
    say(socket, type="close")
    messages = told(socket)
    assert messages[-1]["transcription_id"] is None
    assert not of("revision", messages)
    assert client.get("/v1/transcriptions").json()["data"] == []


def test_a_stream_of_which_nothing_was_heard_leaves_nothing(server, client, dial) -> None:
    socket = dial(polish="best")
    say(socket, type="close")
    assert told(socket)[-1]["transcription_id"] is None
    assert client.get("/v1/transcriptions").json()["data"] == []
    assert list((server.temp_dir / "streams").iterdir()) == []


@pytest.mark.parametrize(
    ("query", "field", "names"),
    [
        ({"polish": "true", "retention": "none"}, "retention", ("polish", "retention")),
        ({"keep_text_s": 5}, "keep_text_s", ("polish",)),
        ({"polish": "whisper-large-v9"}, "model", ("whisper-large-v9",)),
        ({"polish": "true", "keep_audio_s": -1}, "keep_audio_s", ()),
    ],
)
def test_what_cannot_be_kept_is_refused_before_the_socket_opens(dial, query, field, names) -> None:
    with pytest.raises(InvalidStatus) as refused:
        dial(**query)
    error = json.loads(refused.value.response.body or b"")["error"]
    assert refused.value.response.status_code in (404, 422)
    assert error["field"] == field
    for name in names:
        assert name in error["message"]


def test_a_client_that_was_lost_leaves_a_transcription_all_the_same(client, dial) -> None:
    socket = dial(polish="true")
    stream_id = told(socket, "ready")[0]["id"]
    send(socket)
    told(socket, "final")
    socket.socket.close()
    until = time.monotonic() + WAIT_S
    while not (jobs := client.get("/v1/transcriptions").json()["data"]):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert jobs[0]["filename"] == f"{stream_id}.wav"
    kept = completed(client, jobs[0]["id"])
    assert 1.0 < kept["duration"] <= len(SPOKEN) / BYTES_PER_S + 0.01


def test_a_client_that_comes_back_goes_on_in_the_same_recording(client, dial) -> None:
    half = len(SPOKEN) // 2
    first = dial(polish="true")
    ready = told(first, "ready")[0]
    send(first, SPOKEN[:half])
    seq = told(first, "final")[-1]["seq"]
    first.socket.close()
    second = dial(resume=ready["resume_token"], after=seq)
    received = told(second, "ready")[0]["received_bytes"]
    send(second, SPOKEN[received:])
    say(second, type="close")
    kept = completed(client, told(second)[-1]["transcription_id"])
    assert kept["duration"] == pytest.approx(len(SPOKEN) / BYTES_PER_S, abs=0.01)


def test_channels_that_are_heard_apart_are_kept_apart(client, dial) -> None:
    mono = np.frombuffer(SPOKEN, "<i2")
    both = np.stack([mono, np.roll(mono, 8_000)], axis=1).tobytes()
    socket = dial(polish="true", channels="split", input_channels=2)
    send(socket, both)
    say(socket, type="close")
    messages = told(socket)
    assert {revision["channel"] for revision in of("revision", messages)} == {0, 1}
    kept = completed(client, messages[-1]["transcription_id"])
    assert kept["channels"] == 2
    assert {segment["channel"] for segment in kept["segments"]} == {0, 1}


@pytest.mark.parametrize("away", [Unavailable("the store does not answer"), StorageFull("no room")])
def test_a_store_that_is_away_keeps_nobody_waiting_and_the_document_follows(
    server, client, dial, away
) -> None:
    socket = dial(polish="true")
    send(socket)
    server.blobs.failing = away
    say(socket, type="close")
    messages = told(socket)
    assert len(of("final", messages)) == SENTENCES
    assert [warning["code"] for warning in of("warning", messages)] == ["kept_later"]
    promised = messages[-1]["transcription_id"]
    assert client.get(f"/v1/transcriptions/{promised}").status_code == 404

    server.blobs.failing = None
    keep_what_was_left_behind(server)
    assert completed(client, promised)["duration"] == pytest.approx(len(SPOKEN) / BYTES_PER_S, abs=0.01)
    assert list((server.temp_dir / "streams").iterdir()) == []
    keep_what_was_left_behind(server)
    assert len(client.get("/v1/transcriptions").json()["data"]) == 1


def test_a_database_that_is_away_is_waited_for_likewise(server, client, dial) -> None:
    socket = dial(polish="true")
    send(socket)
    server.house.database.refuse("the database is away")
    say(socket, type="close")
    messages = told(socket)
    server.house.database.refuse(None)
    assert of("warning", messages)[0]["code"] == "kept_later"
    keep_what_was_left_behind(server)
    completed(client, messages[-1]["transcription_id"])


def test_what_was_submitted_and_not_cleared_away_is_not_made_twice(server, client, dial) -> None:
    """As a process leaves it that dies between the two."""
    socket = dial(polish="true")
    send(socket)
    server.blobs.failing = Unavailable("the store does not answer")
    say(socket, type="close")
    promised = told(socket)[-1]["transcription_id"]
    server.blobs.failing = None
    folder = server.temp_dir / "streams"
    left = {path.name: path.read_bytes() for path in folder.iterdir()}
    keep_what_was_left_behind(server)
    completed(client, promised)
    for name, content in left.items():
        (folder / name).write_bytes(content)
    keep_what_was_left_behind(server)
    assert list(folder.iterdir()) == []
    assert [one["id"] for one in client.get("/v1/transcriptions").json()["data"]] == [promised]


def test_a_stream_goes_on_where_nothing_can_be_written(server, client, dial) -> None:
    folder = server.temp_dir / "streams"
    shutil.rmtree(folder, ignore_errors=True)
    folder.touch()
    try:
        socket = dial(polish="true")
        send(socket)
        say(socket, type="close")
        messages = told(socket)
    finally:
        folder.unlink()
    assert of("warning", messages)[0]["code"] == "not_kept"
    assert len(of("final", messages)) == SENTENCES
    assert messages[-1]["transcription_id"] is None


def test_a_disk_that_is_slow_loses_nothing_of_what_comes_faster_than_speech(server, client, dial) -> None:
    writes = threading.Event()
    for _ in range(8):  # more than there are threads that write
        server.keeper._writers.submit(writes.wait, WAIT_S)
    socket = dial(polish="true")
    sending = threading.Thread(target=send, args=(socket, SPOKEN * 6))
    sending.start()
    told(socket, "final")
    writes.set()
    sending.join(WAIT_S)
    say(socket, type="close")
    messages = told(socket)
    assert not of("warning", messages)
    kept = completed(client, messages[-1]["transcription_id"])
    assert kept["duration"] == pytest.approx(6 * len(SPOKEN) / BYTES_PER_S, abs=0.01)


def test_a_wish_that_the_polishing_model_cannot_serve_is_refused_while_it_runs(dial) -> None:
    socket = dial(polish="true")
    say(socket, type="configure", language="de")
    refused = told(socket, "error")[-1]
    assert not refused["fatal"]
    assert refused["error"]["field"] == "language"
    say(socket, type="close")
    assert told(socket)[-1]["type"] == "closed"


def keep_what_was_left_behind(server: JobServer) -> None:
    """As the chore does, some time later."""
    server.house.clock.ahead_s += 20
    server.run(server.keeper.keep_lost())
