"""Each error as the unmodified `openai` client takes it: its class, its fields, whether it repeats."""

import httpx
import openai
import pytest

from voiceforge.errors import (
    Conflict,
    EngineFailed,
    Overloaded,
    PermissionDenied,
    ShuttingDown,
    UnreadableAudio,
)
from voiceforge.testing.scripted_services import fails, says


@pytest.fixture
def client(scripted_door):
    with openai.OpenAI(base_url=f"{scripted_door.url}/v1", api_key=scripted_door.key, max_retries=0) as made:
        yield made


def transcribe(client, **options):
    return client.audio.transcriptions.create(**{"model": "fake", "file": b"x", **options})


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (UnreadableAudio("not audio"), openai.BadRequestError, "audio_unreadable"),
        (PermissionDenied("no"), openai.PermissionDeniedError, "permission_denied"),
        (Conflict("busy"), openai.ConflictError, "conflict"),
        (Overloaded("busy"), openai.RateLimitError, "rate_limit_exceeded"),
        (ShuttingDown("leaving"), openai.InternalServerError, "shutting_down"),
        (EngineFailed("broken"), openai.InternalServerError, "engine_failed"),
    ],
)
def test_errors_have_the_clients_classes(client, scripted, error, kind, code):
    scripted.script = fails(error)
    with pytest.raises(kind) as caught:
        transcribe(client)
    assert caught.value.code == code
    assert error.message in caught.value.message
    assert caught.value.request_id


@pytest.mark.parametrize("key", ["wrong", "x" * 200])
def test_a_wrong_key(scripted_door, key):
    with openai.OpenAI(base_url=f"{scripted_door.url}/v1", api_key=key) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            transcribe(client)
        assert caught.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_an_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        transcribe(client, model="nope")
    assert caught.value.code == "model_not_found"
    assert "org/name" in caught.value.message
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such/model")


def test_model_ids_with_slashes(client, scripted):
    assert client.models.retrieve("org/name").id == "org/name"
    transcribe(client, model="org/name")
    assert scripted.requests[-1].model == "org/name"


def test_diarization_is_refused_until_it_exists(client):
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        transcribe(client, response_format="diarized_json")
    assert caught.value.param == "response_format"


def test_an_error_in_the_middle_of_a_stream_raises(client, scripted):
    scripted.script = fails(EngineFailed("the runtime broke"), "One.")
    stream = transcribe(client, stream=True)
    assert next(stream).delta == "One."
    with pytest.raises(openai.APIError, match="the runtime broke") as caught:
        next(stream)
    assert caught.value.code == "engine_failed"


@pytest.fixture
def patient(scripted_door):
    """As people construct it: it tries again by itself."""
    with openai.OpenAI(base_url=f"{scripted_door.url}/v1", api_key=scripted_door.key) as made:
        yield made


def failing(times: int, error: Exception):
    def script(request):
        nonlocal times
        times -= 1
        return (fails(error) if times >= 0 else says("At last."))(request)

    return script


def test_an_overload_is_tried_again_when_we_said_and_succeeds(patient, scripted):
    scripted.script = failing(1, Overloaded("busy", retry_after_s=0.4))
    assert transcribe(patient).text == "At last."
    assert len(scripted.requests) == 2


def test_an_overload_of_an_hour_is_not_waited_for(patient, scripted):
    scripted.script = failing(1, Overloaded("busy", retry_after_s=3600))
    with pytest.raises(openai.RateLimitError) as caught:
        transcribe(patient)
    assert caught.value.response.headers["retry-after"] == "3600"
    assert len(scripted.requests) == 1


@pytest.mark.parametrize("error", [ValueError("a defect"), Conflict("exists already")])
def test_what_would_fail_again_is_not_tried_again(patient, scripted, error):
    scripted.script = failing(1, error)
    with pytest.raises(openai.APIStatusError):
        transcribe(patient)
    assert len(scripted.requests) == 1


def test_a_stream_abandoned_by_the_client_stops_the_work(client, scripted):
    stream = transcribe(client, stream=True)
    next(stream)
    stream.close()
    assert transcribe(client).text  # the server is well


@pytest.mark.parametrize("header", ["api-key", "X-API-Key"])
def test_azure_style_keys(scripted_door, header):
    reply = httpx.get(f"{scripted_door.url}/v1/models", headers={header: scripted_door.key})
    assert reply.status_code == 200
