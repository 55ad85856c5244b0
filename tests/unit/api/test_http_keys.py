from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from voiceforge.api.http.auth import Authenticate
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.http.errors import ErrorReplies
from voiceforge.api.native.errors import NativeErrors
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


async def test_without_a_key_set_everyone_comes_in(client):
    assert (await client.get("/v1/models")).status_code == 200


def test_the_key_is_not_in_the_configs_repr(temp_dir):
    assert "right-key" not in repr(HttpConfig(temp_dir=temp_dir, version="1", api_key="right-key"))
