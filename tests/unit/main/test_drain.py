"""The gate before the app, around an app that answers when the test says so."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from voiceforge.api.http.errors import ErrorReplies
from voiceforge.api.native.errors import NativeErrors
from voiceforge.api.openai_compat.errors import OpenAIErrors
from voiceforge.main.drain import DrainGate


class SlowApp:
    """`begun` is set when a slow request is inside; `go` lets it end. `cancelled` counts those cut off."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            self.begun.set()
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})


@pytest.fixture
def app() -> SlowApp:
    return SlowApp()


@pytest.fixture
def gate(app: SlowApp) -> DrainGate:
    return DrainGate(app, ErrorReplies((OpenAIErrors(), NativeErrors())))


@pytest.fixture
def client(gate: DrainGate) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://test")


async def test_what_is_inside_ends_and_what_comes_is_refused(
    app: SlowApp, gate: DrainGate, client: httpx.AsyncClient
) -> None:
    slow = asyncio.create_task(client.get("/slow"))
    await app.begun.wait()
    assert gate.close() == 1
    refused = await client.post("/v1/transcriptions", content=b"sound")
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "shutting_down"
    assert refused.headers["connection"] == "close"
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["x-request-id"] == refused.json()["error"]["request_id"]
    assert not await gate.wait_empty(0.0)
    app.go.set()
    assert (await slow).text == "done"
    assert await gate.wait_empty(5.0)


async def test_the_refusal_speaks_the_surface_s_language(gate: DrainGate, client: httpx.AsyncClient) -> None:
    gate.close()
    refused = await client.post("/v1/audio/transcriptions")
    assert refused.status_code == 503
    assert set(refused.json()["error"]) >= {"message", "type", "code"}


async def test_health_is_answered_to_the_end(gate: DrainGate, client: httpx.AsyncClient) -> None:
    gate.close()
    for path in ("/health", "/health/ready", "/health/live"):
        assert (await client.get(path)).status_code == 200
    assert (await client.get("/healthy")).status_code == 503


async def test_health_checks_do_not_hold_up_the_end(
    app: SlowApp, gate: DrainGate, client: httpx.AsyncClient
) -> None:
    await client.get("/health")
    assert gate.close() == 0
    assert await gate.wait_empty(0.0)


async def test_after_the_grace_the_rest_is_cut_off(
    app: SlowApp, gate: DrainGate, client: httpx.AsyncClient
) -> None:
    slow = asyncio.create_task(client.get("/slow"))
    await app.begun.wait()
    gate.close()
    gate.cancel_all()
    answer = await slow
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
    assert app.cancelled == 1
    assert await gate.wait_empty(5.0)
