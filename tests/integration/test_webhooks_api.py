"""Webhooks over HTTP: told their secret once, changed, listed in pages, tried out, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from standardwebhooks import Webhook as StandardWebhook

from voiceforge.api.app import create_app
from voiceforge.api.http.config import HttpConfig
from voiceforge.infra.db.database import Database
from voiceforge.infra.jobqueue.embedded import EmbeddedQueue
from voiceforge.infra.webhooks.http import HttpWebhookSender
from voiceforge.services.job_sweep import Workplace
from voiceforge.services.webhook_delivery import WebhookDelivery
from voiceforge.services.webhooks import Webhooks
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.scripted_services import ScriptedTranscriptions, scripted_services
from voiceforge.testing.webhook_receiver import WebhookReceiver, webhook_receiver

ALL = ["transcription.completed", "transcription.failed", "transcription.cancelled", "batch.finished"]
UNKNOWN = "wh_" + "0" * 32


@dataclass
class Api:
    http: httpx.AsyncClient
    receiver: WebhookReceiver
    delivery: WebhookDelivery

    async def hook(self, **more: Any) -> dict[str, Any]:
        answer = await self.http.post("/v1/webhooks", json={"url": self.receiver.url, **more})
        assert answer.status_code == 201
        made: dict[str, Any] = answer.json()
        assert answer.headers["location"] == f"/v1/webhooks/{made['id']}"
        return made

    async def sent(self, webhook_id: str) -> dict[str, Any]:
        """The delivery of a test event that went out."""
        made = (await self.http.post(f"/v1/webhooks/{webhook_id}/test")).json()
        assert await self.delivery.run(made["id"])
        page = (await self.http.get(f"/v1/webhooks/{webhook_id}/deliveries")).json()
        found: dict[str, Any] = page["data"][0]
        assert found["id"] == made["id"]
        return found


@pytest_asyncio.fixture
async def api(database: Database, tmp_path: Path) -> AsyncIterator[Api]:
    async with webhook_receiver() as receiver:
        sender, queue = HttpWebhookSender(allow_hosts=[receiver.host]), EmbeddedQueue()
        made = scripted_services(ScriptedTranscriptions(), tmp_path, ready=False)
        services = replace(made, webhooks=Webhooks(database=database, sender=sender, queue=queue))
        app = create_app(services, HttpConfig(temp_dir=tmp_path, version="1.2.3"))
        delivery = WebhookDelivery(
            database=database,
            sender=sender,
            queue=queue,
            workplace=Workplace.here(),
            metrics=Metrics("test"),
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            yield Api(http, receiver, delivery)
        await asyncio.to_thread(made.engines.close, 1.0)


async def test_the_secret_is_told_once(api: Api) -> None:
    made = await api.hook()
    assert made["secret"].startswith("whsec_")
    assert (made["events"], made["enabled"], made["url"]) == (ALL, True, api.receiver.url)
    shown = (await api.http.get(f"/v1/webhooks/{made['id']}")).json()
    assert shown == {name: value for name, value in made.items() if name != "secret"}
    listed = (await api.http.get("/v1/webhooks")).json()
    assert listed == {"data": [shown], "next_cursor": None}


async def test_a_change_is_what_it_says_and_no_more(api: Api) -> None:
    made = await api.hook(events=["transcription.failed"])
    path = f"/v1/webhooks/{made['id']}"
    off = (await api.http.patch(path, json={"enabled": False})).json()
    assert (off["enabled"], off["events"], off["url"]) == (False, ["transcription.failed"], made["url"])
    moved = await api.http.patch(path, json={"url": made["url"] + "/2", "events": ALL[:2]})
    assert moved.json() == off | {"url": made["url"] + "/2", "events": ALL[:2]}
    assert (await api.http.patch(path, json={})).json() == moved.json()
    assert (await api.http.delete(path)).status_code == 204
    assert (await api.http.get(path)).status_code == 404


async def test_pages_show_each_once(api: Api) -> None:
    ids = [(await api.hook())["id"] for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await api.http.get("/v1/webhooks", params=query)).json()
        seen += [one["id"] for one in page["data"]]
        cursor = page["next_cursor"]
    assert sorted(seen) == sorted(ids)
    assert len(seen) == 5


async def test_trying_it_out_shows_what_came_of_it(api: Api) -> None:
    made = await api.hook()
    found = await api.sent(made["id"])
    (message,) = await api.receiver.arrived(1)
    told = StandardWebhook(made["secret"]).verify(message.body, dict(message.headers))
    assert told["type"] == found["event_type"] == "webhook.test"
    assert found["event_id"] == message.id
    assert (found["status"], found["attempts"], found["next_attempt_at"]) == ("delivered", 1, None)
    (attempt,) = found["log"]
    assert (attempt["status"], attempt["error"]) == (200, None)


async def test_the_log_is_read_by_status_and_replayed(api: Api) -> None:
    made = await api.hook()
    path = f"/v1/webhooks/{made['id']}/deliveries"
    api.receiver.answer(500, 200)
    waiting = await api.sent(made["id"])
    assert waiting["status"] == "waiting"
    assert waiting["next_attempt_at"].endswith("Z")
    await api.sent(made["id"])
    found = (await api.http.get(path, params={"status": "waiting"})).json()["data"]
    assert [one["id"] for one in found] == [waiting["id"]]
    again = await api.http.post(f"{path}/{waiting['id']}/replay")
    assert again.status_code == 202
    assert again.json()["event_id"] == waiting["event_id"]
    assert await api.delivery.run(waiting["id"])
    first, _, third = await api.receiver.arrived(3)
    assert first.id == third.id
    assert (await api.http.get(path, params={"status": "waiting"})).json()["data"] == []


async def test_rotation_tells_the_new_secret(api: Api) -> None:
    made = await api.hook()
    rotated = (await api.http.post(f"/v1/webhooks/{made['id']}/rotate")).json()
    assert rotated["secret"] != made["secret"]
    last = (await api.http.post(f"/v1/webhooks/{made['id']}/rotate", json={"overlap_s": 0})).json()
    await api.sent(made["id"])
    (message,) = await api.receiver.arrived(1)
    assert len(message.headers["webhook-signature"].split(" ")) == 1
    StandardWebhook(last["secret"]).verify(message.body, dict(message.headers))


async def test_what_signs_callbacks_has_a_secret_and_a_log_and_no_url(api: Api) -> None:
    shown = (await api.http.get("/v1/webhooks/callbacks")).json()
    assert (shown["id"], shown["url"], shown["events"], shown["enabled"]) == ("callbacks", None, ALL, True)
    rotated = (await api.http.post("/v1/webhooks/callbacks/rotate")).json()
    assert rotated["secret"].startswith("whsec_")
    assert (await api.http.get("/v1/webhooks/callbacks/deliveries")).json()["data"] == []
    off = await api.http.patch("/v1/webhooks/callbacks", json={"enabled": False})
    assert off.json()["enabled"] is False
    for refused in (
        await api.http.patch("/v1/webhooks/callbacks", json={"url": api.receiver.url}),
        await api.http.post("/v1/webhooks/callbacks/test"),
        await api.http.delete("/v1/webhooks/callbacks"),
    ):
        assert refused.status_code == 422
    assert (await api.http.get("/v1/webhooks")).json()["data"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "http://127.0.0.1:1/hook"}, "url"),
        ({"url": "http://169.254.169.254/latest"}, "url"),
        ({"url": "http://user:pw@example.com/"}, "url"),
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "\ud800"}, "url"),
        ({"url": ""}, "url"),
        ({"url": 7}, "url"),
        ({}, "url"),
        ({"url": "https://example.com/", "events": ["transcription.queued"]}, "events"),
        ({"url": "https://example.com/", "events": []}, "events"),
        ({"url": "https://example.com/", "secret": "whsec_x"}, "secret"),
    ],
)
async def test_what_is_refused_names_the_field(api: Api, body: dict[str, Any], field: str) -> None:
    answer = await api.http.post("/v1/webhooks", content=json.dumps(body))
    assert answer.status_code == 422
    assert field in str(answer.json()["error"]["field"])
    assert (await api.http.get("/v1/webhooks")).json()["data"] == []


@pytest.mark.parametrize("webhook_id", [UNKNOWN, "x", "wh_x", "..", "%00", "wh_" + "é" * 32])
async def test_what_is_not_there_is_not_found(api: Api, webhook_id: str) -> None:
    path = f"/v1/webhooks/{webhook_id}"
    made = await api.hook()
    answers = [
        await api.http.get(f"{path}/deliveries"),
        await api.http.patch(f"{path}", json={"enabled": True}) if webhook_id != ".." else None,
        await api.http.post(f"{path}/rotate"),
        await api.http.post(f"{path}/test"),
        await api.http.post(f"/v1/webhooks/{made['id']}/deliveries/{webhook_id}/replay"),
    ]
    assert {answer.status_code for answer in answers if answer is not None} == {404}


async def test_a_disabled_one_is_neither_tried_nor_replayed(api: Api) -> None:
    made = await api.hook()
    delivery = await api.sent(made["id"])
    path = f"/v1/webhooks/{made['id']}"
    await api.http.patch(path, json={"enabled": False})
    assert (await api.http.post(f"{path}/test")).status_code == 409
    assert (await api.http.post(f"{path}/deliveries/{delivery['id']}/replay")).status_code == 409


@pytest.mark.parametrize(
    "path", ["/v1/webhooks?cursor=abc", "/v1/webhooks?limit=0", "/v1/webhooks?limit=101", "/v1/webhooks?x=1"]
)
async def test_queries_that_mean_nothing_are_refused(api: Api, path: str) -> None:
    assert (await api.http.get(path)).status_code == 422


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
async def test_bodies_that_are_no_object_are_refused(api: Api, content: bytes) -> None:
    assert (await api.http.post("/v1/webhooks", content=content)).status_code == 422


async def test_there_is_an_end_to_how_many(api: Api) -> None:
    for _ in range(100):
        await api.hook()
    answer = await api.http.post("/v1/webhooks", json={"url": api.receiver.url})
    assert answer.status_code == 409
    page = (await api.http.get("/v1/webhooks", params={"limit": "100"})).json()
    assert len(page["data"]) == 100
    assert page["next_cursor"] is None


async def test_a_database_that_is_away_is_told_so(api: Api, database: Database) -> None:
    database.refuse("away for the test")
    answer = await api.http.get("/v1/webhooks")
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
