"""Earlier results over HTTP: what callers are told of them, and what they have to say."""

from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest

from voiceforge.api.app import create_app
from voiceforge.api.http.config import HttpConfig
from voiceforge.services.result_cache import CacheUse
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.transcript import Finished, ModelRef
from voiceforge.testing.scripted_services import spoken

WHEN = datetime(2026, 5, 4, 3, 2, 1, 500_000, tzinfo=UTC)
DOORS = ["/v1/transcriptions", "/transcribe", "/v1/audio/transcriptions", "/v1/audio/translations"]


def made_earlier(*texts):
    async def script(request):
        yield Finished(replace(spoken(*texts), cached_at=WHEN))

    return script


@pytest.mark.parametrize("path", DOORS)
async def test_every_door_says_whether_the_result_is_an_earlier_one(client, scripted, path):
    assert (await client.post(path, files={"file": b"x"})).headers["x-cache"] == "miss"
    scripted.script = made_earlier("Hello there.")
    assert (await client.post(path, files={"file": b"x"})).headers["x-cache"] == "hit"


async def test_the_native_result_says_so_too_and_since_when(client, scripted):
    fresh = (await client.post("/v1/transcriptions", content=b"x")).json()
    assert (fresh["cache_hit"], fresh["cached_at"]) == (False, None)
    scripted.script = made_earlier("Hello there.")
    earlier = (await client.post("/v1/transcriptions", content=b"x")).json()
    assert (earlier["cache_hit"], earlier["cached_at"]) == (True, "2026-05-04T03:02:01.500Z")


@pytest.mark.parametrize("response_format", ["json", "verbose_json"])
async def test_openais_documents_stay_as_they_are(client, scripted, response_format):
    form = {"response_format": response_format}
    fresh = await client.post("/v1/audio/transcriptions", data=form, files={"file": b"x"})
    scripted.script = made_earlier("Hello there.", "This is a test.")
    earlier = await client.post("/v1/audio/transcriptions", data=form, files={"file": b"x"})
    assert earlier.json() == fresh.json()


@pytest.mark.parametrize("path", DOORS)
@pytest.mark.parametrize(
    ("header", "use"),
    [
        (None, CacheUse.NORMAL),
        ("max-age=60", CacheUse.NORMAL),
        ("no-cache", CacheUse.FRESH),
        ("max-age=0", CacheUse.FRESH),
        ("no-store", CacheUse.NONE),
        ("No-Cache , NO-STORE", CacheUse.NONE),
    ],
)
async def test_callers_decide_by_cache_control(client, scripted, path, header, use):
    headers = {} if header is None else {"Cache-Control": header}
    assert (await client.post(path, files={"file": b"x"}, headers=headers)).status_code == 200
    assert [request.cache for request in scripted.requests] == [use]


async def test_a_stream_is_asked_for_in_the_same_way(client, scripted):
    form = {"stream": "true"}
    headers = {"Cache-Control": "no-store"}
    await client.post("/v1/audio/transcriptions", data=form, files={"file": b"x"}, headers=headers)
    assert [request.cache for request in scripted.requests] == [CacheUse.NONE]


async def test_stats_and_clearing(client, services):
    assert (await client.get("/stats")).json()["cache"] == {
        "hits": 0,
        "misses": 0,
        "shared": 0,
        "hit_rate": None,
        "entries": 0,
        "bytes": 0,
    }
    for tenant in ("default", "somebody else"):
        for number in range(2):
            digest = bytes([number]) * 32
            key = services.results.key(tenant, digest, ModelRef("fake", "1"), TranscribeOptions())
            await services.results.keep(key, spoken("Hello there."))
    services.results.count("miss")
    services.results.count("hit")
    told = (await client.get("/stats")).json()["cache"]
    assert (told["hits"], told["hit_rate"], told["entries"]) == (1, 0.5, 4)
    assert told["bytes"] > 0
    reply = await client.delete("/cache")
    assert (reply.status_code, reply.json()) == (200, {"removed": 2})
    assert (await client.get("/stats")).json()["cache"]["entries"] == 2


def asking(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_where_nothing_is_kept_there_is_nothing_to_clear(services, temp_dir):
    nothing_kept = replace(services, results=None)
    app = create_app(nothing_kept, HttpConfig(temp_dir=temp_dir, version="1"))
    async with asking(app) as client:
        assert (await client.delete("/cache")).json() == {"removed": 0}
        assert (await client.get("/stats")).json()["cache"] is None


async def test_clearing_needs_the_key(make_app):
    async with asking(make_app(api_key="right-key")) as client:
        assert (await client.delete("/cache")).status_code == 401
        reply = await client.delete("/cache", headers={"Authorization": "Bearer right-key"})
        assert reply.json() == {"removed": 0}
