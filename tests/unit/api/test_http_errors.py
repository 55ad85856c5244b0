import json

import pytest

from voiceforge.api.http.errors import ErrorReplies
from voiceforge.api.native.errors import NativeErrors
from voiceforge.api.openai_compat.errors import OpenAIErrors
from voiceforge.errors import (
    ConfigurationError,
    EngineFailed,
    ErrorKind,
    Overloaded,
    ShuttingDown,
    VoiceForgeError,
)
from voiceforge.testing.scripted_services import fails

SURFACES = [OpenAIErrors(), NativeErrors()]


def _all_errors(base: type[VoiceForgeError] = VoiceForgeError) -> list[type[VoiceForgeError]]:
    ours = [c for c in base.__subclasses__() if c.__module__ == "voiceforge.errors"]
    return [base, *(found for child in ours for found in _all_errors(child))]


ERRORS = _all_errors()


def _make(kind: type[VoiceForgeError]) -> VoiceForgeError:
    return kind(["a problem"]) if kind is ConfigurationError else kind("a message")


@pytest.mark.parametrize("surface", SURFACES, ids=lambda s: s.name)
@pytest.mark.parametrize("kind", list(ErrorKind))
def test_every_kind_has_a_status_on_every_surface(surface, kind):
    assert 400 <= surface.statuses[kind] < 600


@pytest.mark.parametrize("surface", SURFACES, ids=lambda s: s.name)
def test_no_table_has_kinds_that_do_not_exist(surface):
    assert set(surface.statuses) == set(ErrorKind)


def test_the_error_tree_was_found():
    assert len(ERRORS) > 25
    assert {error.kind for error in ERRORS} == set(ErrorKind)


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: e.__name__)
def test_openai_errors_always_have_all_four_keys(error):
    body = OpenAIErrors().body(_make(error), 400, "id")
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["message"], str)
    assert body["error"]["code"]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: e.__name__)
def test_native_errors_have_one_shape(error):
    body = NativeErrors().body(_make(error), 400, "the-id")
    assert set(body["error"]) == {"code", "message", "kind", "field", "choices", "retryable", "request_id"}
    assert body["error"]["request_id"] == "the-id"


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: e.__name__)
def test_replies_tell_when_to_come_back_and_when_not_to(error):
    reply = ErrorReplies(SURFACES).reply({"path": "/v1/audio/transcriptions", "type": "http"}, _make(error))
    if error.kind in (ErrorKind.OVERLOADED, ErrorKind.UNAVAILABLE):
        assert reply.headers["retry-after"] == "1"
    else:
        assert "retry-after" not in reply.headers
    assert (reply.headers.get("x-should-retry") == "false") is not error.retryable


@pytest.mark.parametrize(("wait", "told"), [(0.2, "1"), (1.0, "1"), (12.1, "13"), (90, "90"), (None, "1")])
async def test_retry_after_is_whole_seconds_rounded_up(client, scripted, wait, told):
    scripted.script = fails(Overloaded("busy", retry_after_s=wait))
    reply = await client.post("/v1/transcriptions", content=b"x")
    assert reply.status_code == 429
    assert reply.headers["retry-after"] == told


async def test_what_is_not_there_for_now_is_503_with_retry_after(client, scripted):
    scripted.script = fails(ShuttingDown("leaving", retry_after_s=3))
    reply = await client.post("/v1/audio/transcriptions", files={"file": b"x"})
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "3")


@pytest.mark.parametrize("path", ["/v1/transcriptions", "/v1/audio/transcriptions"])
async def test_an_unexpected_exception_is_a_500_that_tells_nothing(client, scripted, path, log_lines):
    scripted.script = fails(ZeroDivisionError("secret detail"))
    reply = await client.post(path, files={"file": b"x"}, headers={"X-Request-ID": "find-me"})
    [crash] = [line for line in log_lines if line["event"] == "request_crashed"]
    assert crash["request_id"] == "find-me"
    assert crash["exc_info"]
    assert reply.status_code == 500
    assert "secret" not in reply.text
    assert "ZeroDivision" not in reply.text
    assert reply.headers["x-request-id"] == "find-me"
    assert reply.json()["error"]["code"] == "internal_error"


async def test_a_broken_engine_is_a_500_the_client_may_repeat(client, scripted):
    scripted.script = fails(EngineFailed("the runtime broke"))
    reply = await client.post("/v1/audio/transcriptions", files={"file": b"x"})
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "engine_failed"
    assert "x-should-retry" not in reply.headers


@pytest.mark.parametrize(
    ("method", "path", "status", "keys"),
    [
        ("GET", "/nowhere", 404, {"code", "message", "kind", "field", "choices", "retryable", "request_id"}),
        ("GET", "/v1/audio/nowhere", 404, {"message", "type", "param", "code"}),
        ("GET", "/v1/models/nowhere", 404, {"message", "type", "param", "code"}),
        (
            "GET",
            "/v1/transcriptions",
            405,
            {"code", "message", "kind", "field", "choices", "retryable", "request_id"},
        ),
        ("DELETE", "/v1/audio/transcriptions", 405, {"message", "type", "param", "code"}),
        ("GET", "/v1/models?all=perhaps", 422, {"message", "type", "param", "code"}),
    ],
)
async def test_the_frameworks_own_errors_have_our_shapes(client, method, path, status, keys):
    reply = await client.request(method, path)
    assert reply.status_code == status
    assert set(reply.json()["error"]) == keys
    assert status != 405 or reply.headers["allow"] == "POST"


async def test_what_json_can_say_and_utf8_cannot_is_quoted_safely(client):
    reply = await client.post(
        "/v1/transcriptions",
        content=json.dumps({"\ud800": 1, "url": "http://example.com"}),
        headers={"Content-Type": "application/json"},
    )
    assert reply.status_code == 422


async def test_errors_are_counted_by_kind_and_code(client, scripted, services):
    scripted.script = fails(Overloaded("busy"))
    await client.post("/v1/transcriptions", content=b"x")
    await client.get("/nowhere")
    assert services.metrics.total("errors", kind="overloaded", code="overloaded") == 1
    assert services.metrics.total("errors", kind="not_found") == 1
