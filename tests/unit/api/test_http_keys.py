import json
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.api.http.auth import Authenticate, SurfaceKeys
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.http.errors import ErrorReplies
from voiceforge.api.native.errors import NativeErrors
from voiceforge.api.native.stream import keys_in_subprotocols
from voiceforge.services.authentication import Authentication

GUARDED = ["/", "/stats", "/metrics", "/docs", "/openapi.json", "/v1/models", "/nowhere"]
OPEN = ["/health", "/health/live", "/health/ready"]


@pytest.fixture
async def guarded(make_app: Callable[..., FastAPI]):
    transport = httpx.ASGITransport(make_app(api_key="right-key"))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer right-key"},
        {"authorization": "bearer right-key"},
        {"Authorization": "BEARER  right-key"},
        {"api-key": "right-key"},
        {"X-API-Key": "right-key"},
        {"Authorization": "Bearer wrong", "X-API-Key": "right-key"},
    ],
)
async def test_a_right_key_in_any_of_the_known_headers_opens(guarded, headers):
    assert (await guarded.get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer right-kez"},
        {"Authorization": "Bearer right-key-and-more"},
        {"Authorization": "Bearer"},
        {"Authorization": "right-key"},
        {"Authorization": "Basic right-key"},
        {"X-API-Key": ""},
        {"X-API-Key": "schlüssel".encode()},
    ],
)
async def test_anything_else_is_401_invalid_api_key(guarded, headers):
    reply = await guarded.get("/v1/models", headers=headers)
    assert reply.status_code == 401
    assert reply.json()["error"]["code"] == "invalid_api_key"
    assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", GUARDED)
async def test_everything_is_behind_the_key(guarded, path):
    assert (await guarded.get(path)).status_code == 401


@pytest.mark.parametrize("path", OPEN)
async def test_health_is_open(guarded, path):
    assert (await guarded.get(path)).status_code == 200


async def test_a_wrong_key_is_refused_before_the_upload_is_looked_at(guarded, scripted):
    reply = await guarded.post("/v1/audio/transcriptions", content=b"no form at all")
    assert reply.status_code == 401
    assert reply.json()["error"]["type"] == "authentication_error"
    assert scripted.requests == []


@pytest.mark.parametrize(("key", "refused"), [(b"wrong", True), (b"right-key", False)])
async def test_sockets_are_refused_before_the_handshake(key, refused):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "websocket.connect"}

    scope = {
        "type": "websocket",
        "path": "/v1/nowhere",
        "headers": [(b"x-api-key", key)],
        "query_string": b"",
    }
    app = Authenticate(_accepting, Authentication("right-key"), ErrorReplies((NativeErrors(),)))
    await app(scope, receive, send)
    assert sent[0]["type"] == ("websocket.http.response.start" if refused else "websocket.accept")
    assert sent[0].get("status") == (401 if refused else None)


async def _accepting(scope, receive, send):
    await send({"type": "websocket.accept"})


WORDS = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b"Bearer ", b"token vf_", b"ek_a.b", b"vft_" + b"x" * 20_000, b"Bearer eyJ.e30.", b"right-key"]
    ),
)


@given(
    st.lists(st.tuples(st.sampled_from([b"authorization", b"api-key", b"x-api-key"]), WORDS), max_size=3),
    st.binary(max_size=40).map(lambda noise: b"token=" + noise),
    st.lists(st.text(max_size=20) | st.sampled_from(["token", "bearer", "voiceforge.key.vf_1"]), max_size=4),
)
async def test_whatever_is_offered_is_let_in_or_answered_with_why(offered, query, subprotocols):
    answers = []

    async def send(message):
        answers.append(message)

    async def receive():
        return {"type": "websocket.connect"}

    scope = {
        "type": "websocket",
        "path": "/v1/stream",
        "headers": offered,
        "query_string": query,
        "subprotocols": subprotocols,
        "client": ("192.0.2.1", 5),
    }
    surface = SurfaceKeys(lambda path: True, keys_in_subprotocols, realtime=True)
    authentication = Authentication("right-key", failures_per_minute=0)
    app = Authenticate(_accepting, authentication, ErrorReplies((NativeErrors(),)), (surface,))
    await app(scope, receive, send)
    if answers[0]["type"] == "websocket.accept":
        assert any(b"right-key" in value for _, value in offered)
    else:
        assert answers[0]["status"] == 401
        assert json.loads(answers[1]["body"])["error"]["kind"] == "unauthenticated"


async def test_without_a_key_set_everyone_comes_in(client):
    assert (await client.get("/v1/models")).status_code == 200


def test_the_key_is_not_in_the_configs_repr(temp_dir):
    assert "right-key" not in repr(HttpConfig(temp_dir=temp_dir, version="1", api_key="right-key"))
