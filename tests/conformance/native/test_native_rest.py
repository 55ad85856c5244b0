"""Our own REST surface, as curl and httpx speak to it, with the embedded engine."""

import json
import subprocess

import httpx
import numpy as np
import pytest
import soundfile

from voiceforge.api.native.schemas import ErrorOut, TranscriptOut

SAID = "ever failed"


@pytest.fixture(scope="module")
def client(door):
    headers = {"Authorization": f"Bearer {door.key}"}
    with httpx.Client(base_url=door.url, headers=headers, timeout=60) as made:
        yield made


def test_multipart_raw_and_declared_pcm_give_the_same_text(client, beckett):
    samples, rate = soundfile.read(beckett, dtype="int16")
    replies = [
        client.post("/v1/transcriptions", files={"file": beckett.read_bytes()}),
        client.post(
            "/v1/transcriptions", content=beckett.read_bytes(), headers={"Content-Type": "audio/wav"}
        ),
        client.post(
            f"/v1/transcriptions?encoding=s16le&sample_rate={rate}",
            content=np.ascontiguousarray(samples).tobytes(),
            headers={"Content-Type": "application/octet-stream"},
        ),
    ]
    texts = [reply.json()["text"] for reply in replies]
    assert SAID in texts[0].lower()
    assert texts[0] == texts[1] == texts[2]


def test_the_result_has_the_documented_shape_and_adds_up(client, two_cities):
    reply = client.post("/v1/transcriptions?words=true", content=two_cities.read_bytes())
    made = TranscriptOut.model_validate(json.loads(reply.content))
    assert made.language == "en"
    assert 43 < made.duration < 45
    assert made.rtf == pytest.approx(made.processing_s / made.duration, abs=0.01)
    assert made.text == " ".join(segment.text for segment in made.segments)
    assert [word.word for word in made.words] == made.text.split()
    assert all(0 <= word.start <= word.end <= made.duration for word in made.words)
    assert made.coverage.transcribed_s <= made.coverage.speech_s <= made.duration


@pytest.mark.parametrize(
    ("accept", "start"),
    [
        ("text/vtt", "WEBVTT"),
        ("application/x-subrip", "1\n00:00:0"),
        ("text/tab-separated-values", "start\t"),
    ],
)
def test_accept_chooses_the_output(client, beckett, accept, start):
    reply = client.post("/v1/transcriptions", content=beckett.read_bytes(), headers={"Accept": accept})
    assert reply.headers["content-type"].split(";")[0] == accept
    assert reply.text.startswith(start)


def test_channels_are_transcribed_by_themselves(client, beckett, tmp_path):
    samples, rate = soundfile.read(beckett, dtype="float32")
    stereo = tmp_path / "stereo.wav"
    soundfile.write(stereo, np.stack([samples, np.zeros_like(samples)], axis=1), rate)
    reply = client.post("/v1/transcriptions?channels=split", content=stereo.read_bytes())
    made = TranscriptOut.model_validate(json.loads(reply.content))
    assert made.channels == 2
    assert {segment.channel for segment in made.segments} == {0}


def test_the_simple_path(client, beckett):
    made = client.post("/transcribe", files={"file": beckett.read_bytes()}).json()
    assert set(made) == {"text", "language", "duration", "processing_s", "rtf"}
    assert SAID in made["text"].lower()


def test_curl(door, beckett):
    command = [
        "curl",
        "-s",
        "-H",
        f"X-API-Key: {door.key}",
        "-F",
        f"file=@{beckett}",
        f"{door.url}/v1/transcriptions",
    ]
    try:
        out = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    except FileNotFoundError:
        pytest.skip("there is no curl here")
    assert SAID in json.loads(out)["text"].lower()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.wav",
        "http://localhost:1/a.wav",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/a.wav",
        "http://10.0.0.1/a.wav",
        "file:///etc/passwd",
        "ftp://example.com/a.wav",
        "not a url",
    ],
)
def test_urls_into_private_networks_are_refused(client, url):
    reply = client.post("/v1/transcriptions", json={"url": url})
    assert reply.status_code == 422
    assert ErrorOut.model_validate(reply.json()).error.code == "url_refused"


@pytest.mark.parametrize(
    ("query", "field"), [("language=xx", "language"), ("task=translate", "task"), ("model=nope", "model")]
)
def test_what_the_model_cannot_do_is_refused_with_the_choices(client, beckett, query, field):
    reply = client.post(f"/v1/transcriptions?{query}", content=beckett.read_bytes())
    assert reply.status_code in (404, 422)
    error = ErrorOut.model_validate(reply.json()).error
    assert error.field == field or error.code == "model_not_found"
    assert error.request_id == reply.headers["x-request-id"]


def test_what_is_not_recognised_in_time_is_given_up(client, two_cities):
    late = client.post("/v1/transcriptions?timeout_s=0.001", content=two_cities.read_bytes())
    assert late.status_code == 504
    error = ErrorOut.model_validate(late.json()).error
    assert (error.code, error.retryable) == ("deadline_exceeded", True)
    in_time = client.post("/v1/transcriptions?timeout_s=100", content=two_cities.read_bytes())
    assert in_time.status_code == 200


def test_the_server_says_how_it_is(client):
    assert client.get("/health/ready").status_code == 200
    assert client.get("/health").json()["status"] in ("ok", "degraded")
    assert client.get("/stats").json()["models_loaded"]
    assert "voiceforge_audio_seconds_total" in client.get("/metrics").text
