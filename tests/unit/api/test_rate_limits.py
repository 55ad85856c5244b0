"""Who asks too often is refused in the words of each door, and everybody is told how much is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from voiceforge.api.app import create_app
from voiceforge.api.http.config import HttpConfig
from voiceforge.errors import QuotaExceeded
from voiceforge.infra.limiter.memory import MemoryLimiter
from voiceforge.services.access import Caller, trusted
from voiceforge.services.authentication import Authentication, Offer
from voiceforge.services.container import Services
from voiceforge.services.limits import Limits
from voiceforge.services.tiers import Tier, Tiers
from voiceforge.services.transcriptions import TranscribeRequest
from voiceforge.speech.transcript import TranscribeEvent
from voiceforge.testing.live_server import live_server
from voiceforge.testing.scripted_services import ScriptedTranscriptions, fails, says

MOST = 3
KEY = "right-key"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(services: Services, temp_dir: Path, clock: Clock) -> FastAPI:
    limits = Limits(Tiers(), MemoryLimiter(clock=clock), services.metrics, per_address=MOST)
    return create_app(replace(services, limits=limits), HttpConfig(temp_dir, "1.2.3", api_key=KEY))


def client_at(app: FastAPI, address: str, key: str = KEY) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, client=(address, 5))
    return httpx.AsyncClient(
        transport=transport, base_url="http://test", headers={"Authorization": f"Bearer {key}"}
    )


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_at(app, "192.0.2.1") as made:
        yield made


async def use_up(client: httpx.AsyncClient) -> None:
    for _ in range(MOST):
        assert (await client.get("/v1/models")).status_code == 200


async def test_every_answer_tells_how_much_is_left(client: httpx.AsyncClient, clock: Clock) -> None:
    await client.get("/v1/nothing-here")
    clock.now += 20.5
    answer = await client.get("/v1/formats")
    assert answer.headers["RateLimit-Policy"] == '"address";q=3;w=60'
    assert answer.headers["RateLimit"] == '"address";r=1;t=40'
    assert answer.headers["RateLimit-Limit"] == "3"
    assert answer.headers["RateLimit-Remaining"] == "1"
    assert answer.headers["RateLimit-Reset"] == "40"
    assert "x-ratelimit-limit-requests" not in answer.headers


async def test_the_openai_door_tells_it_in_its_own_fields_too(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/models")
    assert answer.headers["x-ratelimit-limit-requests"] == "3"
    assert answer.headers["x-ratelimit-remaining-requests"] == "2"
    assert answer.headers["x-ratelimit-reset-requests"] == "1m0s"


async def test_our_own_door_refuses_with_a_time_that_is_true(client: httpx.AsyncClient, clock: Clock) -> None:
    await use_up(client)
    clock.now += 12.3
    refused = await client.post("/v1/transcriptions", content=b"not read")
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limited"
    assert refused.json()["error"]["retryable"] is True
    assert refused.headers["RateLimit-Remaining"] == "0"
    wait_s = int(refused.headers["Retry-After"])
    assert wait_s == 48
    clock.now += wait_s - 1
    assert (await client.get("/v1/formats")).status_code == 429
    clock.now += 1
    assert (await client.get("/v1/models")).status_code == 200


async def test_the_openai_door_refuses_as_its_clients_know_it(client: httpx.AsyncClient) -> None:
    await use_up(client)
    refused = await client.post("/v1/audio/transcriptions")
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert "x-should-retry" not in refused.headers
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"


async def test_the_deepgram_door_refuses_as_its_clients_know_it(client: httpx.AsyncClient) -> None:
    await use_up(client)
    refused = await client.post("/v1/listen", content=b"not read")
    assert refused.status_code == 429
    assert refused.json()["err_code"] == "TOO_MANY_REQUESTS"
    assert refused.headers["dg-error"] == refused.json()["err_msg"]
    assert refused.headers["Retry-After"] == "60"


async def test_addresses_are_counted_apart_and_those_of_one_network_of_version_6_together(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    await use_up(client)
    async with client_at(app, "192.0.2.2") as other:
        await use_up(other)
    async with client_at(app, "2001:db8::1") as one:
        await use_up(one)
    async with client_at(app, "2001:db8::2:1") as neighbour:
        assert (await neighbour.get("/v1/models")).status_code == 429
    async with client_at(app, "2001:db8:0:1::1") as stranger:
        await use_up(stranger)


async def test_probes_are_never_refused_and_count_nothing(client: httpx.AsyncClient) -> None:
    for _ in range(2 * MOST):
        answer = await client.get("/health")
        assert answer.status_code in (200, 503)
        assert "RateLimit" not in answer.headers
    await use_up(client)
    assert (await client.get("/health/live")).status_code == 200


async def test_refusals_are_counted(client: httpx.AsyncClient, services: Services) -> None:
    await use_up(client)
    await client.get("/v1/models")
    assert services.metrics.total("rate_limited", by="address") == 1
    assert services.metrics.total("errors", code="rate_limited") == 1


class Known(Authentication):
    """Everybody is the same."""

    def __init__(self, caller: Caller) -> None:
        super().__init__()
        self._caller = caller

    async def caller(self, offer: Offer) -> Caller:
        return self._caller


SOMEBODY = replace(trusted("acme"), tier="small")


@pytest.fixture
def small(services: Services, temp_dir: Path) -> FastAPI:
    tier = Tier(concurrent_requests=1, concurrent_streams=0, upload_bytes=1000)
    limits = Limits(Tiers({"small": tier}), MemoryLimiter(), services.metrics)
    known = replace(services, limits=limits, authentication=Known(SOMEBODY))
    return create_app(known, HttpConfig(temp_dir, "1.2.3"))


async def test_one_request_too_many_at_once_is_refused_and_the_place_is_free_afterwards(
    small: FastAPI, scripted: ScriptedTranscriptions
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def waits(request: TranscribeRequest) -> AsyncGenerator[TranscribeEvent, None]:
        begun.set()
        await go_on.wait()
        async for event in says("done")(request):
            yield event

    scripted.script = waits
    async with client_at(small, "192.0.2.1") as client:
        first = asyncio.create_task(client.post("/v1/transcriptions", content=b"RIFF"))
        await begun.wait()
        refused = await client.post("/v1/transcriptions", content=b"RIFF")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
        assert refused.headers["Retry-After"] == "1"
        assert (await client.get("/v1/models")).status_code == 200, "looking takes no place"
        go_on.set()
        assert (await first).status_code == 200
        assert (await client.post("/v1/transcriptions", content=b"RIFF")).status_code == 200


async def test_what_is_larger_than_the_tier_allows_is_refused_told_or_not(
    small: FastAPI, scripted: ScriptedTranscriptions
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 400

    async with client_at(small, "192.0.2.1") as client:
        told = await client.post("/v1/transcriptions", content=b"x" * 1001)
        untold = await client.post("/v1/transcriptions", content=pieces())
        in_pieces = await client.post(
            "/v1/uploads", headers={"Upload-Length": "1001", "Tus-Resumable": "1.0.0"}
        )
        fits = await client.post("/v1/transcriptions", content=b"x" * 1000)
    assert [answer.status_code for answer in (told, untold, in_pieces)] == [413, 413, 413]
    assert fits.status_code == 200


def test_a_stream_too_many_is_refused_before_its_handshake(small: FastAPI) -> None:
    with live_server(small) as server, pytest.raises(InvalidStatus) as refused:
        connect(f"ws://{server.host}:{server.port}/v1/stream")
    assert refused.value.response.status_code == 429
    assert refused.value.response.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/v1/transcriptions", 402, '"code": "quota_exceeded"'),
        ("/v1/listen", 402, '"err_code": "ASR_PAYMENT_REQUIRED"'),
        ("/v1/audio/transcriptions", 429, '"code": "insufficient_quota"'),
    ],
)
async def test_a_month_that_is_used_up_is_told_in_the_words_of_each_door(
    client: httpx.AsyncClient, scripted: ScriptedTranscriptions, path: str, status: int, words: str
) -> None:
    scripted.script = fails(QuotaExceeded("the 2 audio minutes are used up", retry_after_s=99.5))
    if path == "/v1/audio/transcriptions":
        refused = await client.post(path, files={"file": ("a.wav", b"RIFF")}, data={"model": "fake"})
        assert refused.headers["x-should-retry"] == "false"
        assert refused.json()["error"]["type"] == "insufficient_quota"
    else:
        refused = await client.post(path, content=b"RIFF", headers={"Content-Type": "audio/wav"})
    assert refused.status_code == status
    assert words in refused.text
    assert refused.headers["Retry-After"] == "100"
