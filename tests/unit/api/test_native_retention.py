"""`retention=none` and `upload_id`: what reaches the services, and what touches the disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from voiceforge.api.app import create_app
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.native.job_convert import wanted_retention
from voiceforge.api.native.schemas import Options
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.migrate import Migrations
from voiceforge.infra.db.records import Retention
from voiceforge.services.recordings import AudioBytes, AudioFile
from voiceforge.services.result_cache import CacheUse
from voiceforge.services.uploads import Uploads
from voiceforge.testing.scripted_services import ScriptedTranscriptions, scripted_services

MIB = 1 << 20
TUS = {"Tus-Resumable": "1.0.0"}


@pytest.fixture
def transcriptions() -> ScriptedTranscriptions:
    return ScriptedTranscriptions()


@pytest.fixture
def client(transcriptions: ScriptedTranscriptions, tmp_path: Path) -> Iterator[TestClient]:
    (tmp_path / "tmp").mkdir()
    database = Database(f"sqlite:///{tmp_path}/jobs.db")
    services = scripted_services(transcriptions, tmp_path)
    uploads = Uploads(
        database=database, folder=tmp_path / "uploads", temp_dir=tmp_path / "tmp", max_bytes=MIB
    )
    services = replace(services, uploads=uploads)
    config = HttpConfig(temp_dir=tmp_path / "tmp", version="0", unkept_upload_bytes=4 * MIB)
    with TestClient(create_app(services, config)) as client:
        assert client.portal is not None
        client.portal.call(Migrations(database).upgrade)
        yield client
        client.portal.call(database.close)
    services.engines.close(0.0)


@pytest.fixture
def never_written(client: TestClient, tmp_path: Path) -> None:
    """Whoever would write a temporary file fails."""
    (tmp_path / "tmp").rmdir()


@pytest.mark.usefixtures("never_written")
def test_a_recording_of_which_nothing_is_kept_stays_in_memory(
    client: TestClient, transcriptions: ScriptedTranscriptions
) -> None:
    recording = b"x" * (3 * MIB)
    form = client.post("/v1/transcriptions", data={"retention": "none"}, files={"file": ("a.wav", recording)})
    raw = client.post("/v1/transcriptions?retention=none", content=recording)
    assert (form.status_code, raw.status_code) == (200, 200)
    assert transcriptions.uploads == [recording, recording]
    assert [type(request.source) for request in transcriptions.requests] == [AudioBytes, AudioBytes]
    assert {request.cache for request in transcriptions.requests} == {CacheUse.NONE}


@pytest.mark.usefixtures("never_written")
@pytest.mark.parametrize("shape", ["form", "raw"])
def test_more_than_memory_may_hold_is_refused(client: TestClient, shape: str) -> None:
    recording = b"x" * (4 * MIB + 1)
    wishes: dict[str, Any] = {"content": recording} if shape == "raw" else {"files": {"file": recording}}
    assert client.post("/v1/transcriptions?retention=none", **wishes).status_code == 413


def test_a_wish_that_comes_too_late_and_a_url_are_refused(client: TestClient) -> None:
    boundary = "b"
    late = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        + b"x" * (2 * MIB)
        + b'\r\n--b\r\nContent-Disposition: form-data; name="retention"\r\n\r\nnone\r\n--b--\r\n'
    )
    reply = client.post(
        "/v1/transcriptions",
        content=late,
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    assert (reply.status_code, reply.json()["error"]["field"]) == (422, "retention")
    reply = client.post("/v1/transcriptions", json={"url": "http://a.example/a", "retention": "none"})
    assert (reply.status_code, reply.json()["error"]["field"]) == (422, "url")
    reply = client.post("/v1/transcriptions?keep_text_s=1", content=b"abc")
    assert (reply.status_code, reply.json()["error"]["field"]) == (422, "keep_text_s")


def begun(client: TestClient, content: bytes, length: int | None = None) -> str:
    reply = client.post(
        "/v1/uploads",
        content=content,
        headers=TUS
        | {
            "Upload-Length": str(length or len(content)),
            "Content-Type": "application/offset+octet-stream",
        },
    )
    assert reply.status_code == 201
    return str(reply.headers["Location"]).rpartition("/")[2]


def test_an_upload_is_a_recording(
    client: TestClient, transcriptions: ScriptedTranscriptions, tmp_path: Path
) -> None:
    upload_id = begun(client, b"spoken")
    for _ in range(2):
        assert client.post("/v1/transcriptions", json={"upload_id": upload_id}).status_code == 200
    once_more = client.post(
        "/v1/transcriptions", files={"upload_id": (None, upload_id), "retention": (None, "none")}
    )
    assert once_more.status_code == 200
    assert transcriptions.uploads == [b"spoken"] * 3
    assert isinstance(transcriptions.requests[0].source, AudioFile)
    assert client.post("/v1/transcriptions", json={"upload_id": upload_id}).status_code == 404
    assert not list((tmp_path / "uploads").iterdir())
    assert not list((tmp_path / "tmp").iterdir())


def test_an_upload_that_is_none(client: TestClient) -> None:
    unfinished = begun(client, b"spo", 6)
    replies = [
        client.post("/v1/transcriptions", json={"upload_id": unfinished}),
        client.post("/v1/transcriptions", json={"upload_id": "up_none"}),
        client.post("/v1/transcriptions", data={"upload_id": unfinished}, files={"file": b"abc"}),
        client.post(f"/v1/transcriptions?upload_id={unfinished}", content=b"abc"),
        client.post(
            "/v1/transcriptions", json={"upload_id": begun(client, b"abc"), "url": "http://a.example"}
        ),
    ]
    assert [reply.status_code for reply in replies] == [409, 404, 422, 422, 422]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, None),
        ({"keep_audio_s": 0}, Retention(0, None)),
        ({"keep_audio_s": 5, "keep_text_s": 6}, Retention(5, 6)),
        ({"retention": "none"}, Retention(0, 3600)),
        ({"retention": "none", "keep_text_s": 60}, Retention(0, 60)),
        ({"retention": "none", "keep_text_s": 9999, "keep_audio_s": 9}, Retention(0, 3600)),
    ],
)
def test_the_wish_of_a_job(given: dict[str, Any], wanted: Retention | None) -> None:
    assert wanted_retention(Options(mode="async", **given), 3600) == wanted
