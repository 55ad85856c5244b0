"""A batch as a whole: whoever wants to know is told once all of it is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select

from voiceforge.errors import InvalidRequest, UrlRefused
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.tables import events
from voiceforge.infra.jobqueue.embedded import EmbeddedQueue
from voiceforge.infra.webhooks.http import HttpWebhookSender
from voiceforge.services.access import OWNER
from voiceforge.services.batches import Batches, BatchRequest
from voiceforge.services.job_intake import JobRequest
from voiceforge.services.jobs import JobStatus
from voiceforge.services.samples import sample_recordings
from voiceforge.services.webhooks import CALLBACKS, Webhooks
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.job_house import JobHouse, job_house
from voiceforge.testing.memory_blobs import MemoryBlobs

BECKETT, DICKENS = sample_recordings()
HOOK = "https://receiver.example/hook"
CALLBACK = "https://receiver.example/batch"


@pytest.fixture(scope="module")
def vad() -> SileroModel:
    return SileroModel()


@pytest.fixture
def webhooks(database: Database) -> Webhooks:
    async def public(host: str, port: int) -> Sequence[str]:
        return ["10.0.0.1" if host == "inside.example" else "93.184.215.14"]

    return Webhooks(database=database, sender=HttpWebhookSender(resolver=public), queue=EmbeddedQueue())


@pytest_asyncio.fixture
async def house(
    database: Database, tmp_path: Path, vad: SileroModel, webhooks: Webhooks
) -> AsyncIterator[JobHouse]:
    made = job_house(database, MemoryBlobs(), tmp_path, vad=vad, check_callback=webhooks.check_callback)
    async with made as one:
        yield one


def batches_of(house: JobHouse) -> Batches:
    return Batches(house.database, house.intake, house.jobs, house.news)


def asks(source: Path = BECKETT, **options: Any) -> JobRequest:
    return JobRequest(source, TranscribeOptions(**options))


async def told(house: JobHouse) -> list[dict[str, Any]]:
    """The events of batches, in order."""
    query = select(events.c.data).where(events.c.type == "batch.finished").order_by(events.c.seq)
    async with house.database.reading() as connection:
        return list((await connection.execute(query)).scalars())


async def test_the_last_to_end_ends_the_batch(house: JobHouse, webhooks: Webhooks) -> None:
    hook = (await webhooks.add(OWNER, HOOK, ["batch.finished"])).webhook
    deaf = (await webhooks.add(OWNER, HOOK, ["transcription.completed"])).webhook
    refused = InvalidRequest("there is no url", field="url")
    request = BatchRequest(
        [asks(), refused, asks(DICKENS)], metadata={"show": "Hours"}, callback_url=CALLBACK
    )
    made = (await batches_of(house).submit(request)).view.batch
    first, last = (item.job.id for item in (await batches_of(house).items(made)).items)
    assert await house.runner.run(first)
    assert await told(house) == []
    await house.jobs.cancel(OWNER, last)
    (event,) = await told(house)
    assert event == {
        "id": made.id,
        "status": "completed",
        "size": 3,
        "counts": {"queued": 0, "running": 0, "completed": 1, "failed": 0, "cancelled": 1, "refused": 1},
        "partial_failure": True,
        "metadata": {"show": "Hours"},
    }
    (delivery,) = await webhooks.deliveries(OWNER, hook.id)
    assert (delivery.event_type, delivery.url) == ("batch.finished", HOOK)
    assert len(await webhooks.deliveries(OWNER, deaf.id)) == 1
    (called,) = await webhooks.deliveries(OWNER, CALLBACKS)
    assert (called.event_type, called.url) == ("batch.finished", CALLBACK)

    await house.jobs.retry(OWNER, last)
    assert await house.runner.run(last)
    assert [one["counts"]["completed"] for one in await told(house)] == [1, 2]
    await batches_of(house).erase(OWNER, made.id)
    assert await told(house) == []


async def test_of_those_that_end_at_the_same_time_one_ends_the_batch(house: JobHouse) -> None:
    made = (await batches_of(house).submit(BatchRequest([asks() for _ in range(12)]))).view.batch
    items = (await batches_of(house).items(made)).items
    await asyncio.gather(*(house.jobs.cancel(OWNER, item.job.id) for item in items))
    (event,) = await told(house)
    assert (event["status"], event["counts"]["cancelled"]) == (JobStatus.CANCELLED, 12)


async def test_a_batch_of_nothing_good_is_over_at_once(house: JobHouse) -> None:
    await batches_of(house).submit(BatchRequest([InvalidRequest("no", field="url")]))
    (event,) = await told(house)
    assert (event["status"], event["counts"]["refused"]) == (JobStatus.FAILED, 1)


async def test_a_callback_we_do_not_call_refuses_all_of_it(house: JobHouse) -> None:
    request = BatchRequest([asks()], callback_url="https://inside.example/")
    with pytest.raises(UrlRefused) as refused:
        await batches_of(house).submit(request)
    assert refused.value.field == "callback_url"
    assert await house.jobs.list(OWNER) == []
