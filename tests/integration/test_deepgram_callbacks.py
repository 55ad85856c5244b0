"""`callback` at Deepgram's door: accepted at once, worked on as a job, sent as Deepgram's document, on both
databases and to a real receiver."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from voiceforge.api.app import create_app
from voiceforge.api.deepgram_compat.callbacks import SURFACE, DeepgramCallbacks
from voiceforge.api.http.config import HttpConfig
from voiceforge.infra.db.database import Database
from voiceforge.infra.jobqueue.embedded import EmbeddedQueue
from voiceforge.infra.webhooks.http import HttpWebhookSender
from voiceforge.services.access import OWNER
from voiceforge.services.job_news import JobNews
from voiceforge.services.job_sweep import Workplace
from voiceforge.services.samples import sample_recordings
from voiceforge.services.webhook_delivery import WebhookDelivery
from voiceforge.services.webhooks import Webhooks
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.fake_engine import says_by_length
from voiceforge.testing.job_house import JobHouse, TestClock, job_house
from voiceforge.testing.memory_blobs import MemoryBlobs
from voiceforge.testing.scripted_services import ScriptedTranscriptions, scripted_services
from voiceforge.testing.webhook_receiver import WebhookReceiver, webhook_receiver

TENANT = "default"


@dataclass
class Door:
    http: httpx.AsyncClient
    house: JobHouse
    receiver: WebhookReceiver
    delivery: WebhookDelivery
    clock: TestClock

    async def ask(self, body: bytes, **query: Any) -> httpx.Response:
        query.setdefault("callback", self.receiver.url)
        return await self.http.post("/v1/listen", params=query, content=body)

    async def work(self) -> None:
        """All jobs to their ends."""
        jobs = await self.house.jobs.list(OWNER)
        self.house.start()
        for view in jobs:
            async for _ in self.house.jobs.events(OWNER, view.job.id):
                pass
        await self.house.stop()

    async def send(self) -> int:
        count = 0
        while await self.delivery.run_next():
            count += 1
        return count


@pytest_asyncio.fixture
async def door(database: Database, tmp_path: Path) -> AsyncIterator[Door]:
    async with webhook_receiver() as receiver:
        sender, queue, clock = HttpWebhookSender(allow_hosts=[receiver.host]), EmbeddedQueue(), TestClock()
        webhooks = Webhooks(database=database, sender=sender, queue=queue)
        house_of_jobs = job_house(
            database,
            MemoryBlobs(),
            tmp_path,
            vad=SileroModel(),
            script=says_by_length(),
            news=lambda: JobNews(queue),
            check_callback=webhooks.check_callback,
        )
        async with house_of_jobs as house:
            made = scripted_services(ScriptedTranscriptions(), tmp_path, ready=False)
            services = replace(made, transcriptions=house.transcriptions, jobs=house.jobs)
            app = create_app(services, HttpConfig(temp_dir=tmp_path, version="1.2.3"))
            delivery = WebhookDelivery(
                database=database,
                sender=sender,
                queue=queue,
                workplace=Workplace.here(),
                metrics=Metrics("test"),
                shapes={SURFACE: DeepgramCallbacks(TranscribeOptions(), lambda model: "moonshine")},
                clock=clock,
            )
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                yield Door(http, house, receiver, delivery, clock)
            await asyncio.to_thread(made.engines.close, 1.0)


def speech() -> bytes:
    return sample_recordings()[0].read_bytes()


@pytest.mark.parametrize(("method", "used"), [(None, "POST"), ("PUT", "PUT"), ("put", "PUT")])
async def test_the_document_arrives(door: Door, method: str | None, used: str) -> None:
    said = speech()
    more = {} if method is None else {"callback_method": method}
    reply = await door.ask(said, punctuate="true", tag="mine", utterances="true", **more)
    assert reply.status_code == 200
    accepted = reply.json()
    assert set(accepted) == {"request_id"}
    assert accepted["request_id"] == reply.headers["dg-request-id"]
    assert await door.send() == 0
    await door.work()
    assert await door.send() == 1
    [one] = await door.receiver.arrived(1)
    assert one.method == used
    document = json.loads(one.body)
    assert set(document) == {"metadata", "results"}
    assert document["metadata"]["request_id"] == accepted["request_id"]
    assert document["metadata"]["sha256"] == hashlib.sha256(said).hexdigest()
    assert document["metadata"]["tags"] == ["mine"]
    assert document["results"]["channels"][0]["alternatives"][0]["words"]
    assert document["results"]["utterances"]
    assert one.headers["webhook-signature"]


async def test_a_failure_is_told_in_deepgrams_words(door: Door) -> None:
    reply = await door.ask(b"this is no recording\n" * 50)
    assert reply.status_code == 200
    await door.work()
    assert await door.send() == 1
    [one] = await door.receiver.arrived(1)
    told = json.loads(one.body)
    assert set(told) == {"err_code", "err_msg", "request_id"}
    assert told["request_id"] == reply.json()["request_id"]


async def test_ten_more_attempts_every_thirty_seconds(door: Door) -> None:
    door.receiver.answer(500)
    await door.ask(speech())
    await door.work()
    for count in range(1, 12):
        assert await door.send() == 1
        assert len(door.receiver.received) == count
        door.clock.ahead_s += 29
        assert await door.send() == 0
        door.clock.ahead_s += 1.5
    assert await door.send() == 0
    assert len({one.body for one in door.receiver.received}) == 1


async def test_erased_text_is_not_sent(door: Door, database: Database) -> None:
    from voiceforge.infra.db import results

    await door.ask(speech())
    await door.work()
    [view] = await door.house.jobs.list(OWNER)
    async with database.transaction() as connection:
        await results.forget(connection, view.job.id, door.clock())
    await door.send()
    [one] = await door.receiver.arrived(1)
    assert json.loads(one.body)["err_code"] == "CANCELLED"


async def test_where_we_do_not_call_is_refused(door: Door) -> None:
    reply = await door.ask(speech(), callback="http://10.0.0.1/hook")
    assert reply.status_code == 400
    wrong = await door.ask(speech(), callback_method="DELETE")
    assert wrong.status_code == 400
    assert await door.house.jobs.list(OWNER) == []


async def test_the_job_is_one_like_any_other(door: Door) -> None:
    reply = await door.ask(speech())
    [view] = await door.house.jobs.list(OWNER)
    assert view.job.metadata == {"deepgram_request_id": reply.json()["request_id"]}
    assert "callback" not in json.dumps(view.job.callback_shape)
