"""Events reach their receivers: signed, once they are true and not before, and in spite of slow, broken and
vanished receivers, and of processes that die over it. On both databases, to a real receiver."""

from __future__ import annotations

import asyncio
import base64
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from standardwebhooks import Webhook as StandardWebhook
from standardwebhooks import WebhookVerificationError

from voiceforge.errors import Conflict, NotFound, StorageFull, UrlRefused
from voiceforge.infra.db import events, transcriptions
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.records import Delivery, DeliveryStatus, Event, JobError, JobStatus, NewJob, Rank
from voiceforge.infra.jobqueue.base import Lane, Task, TaskKind
from voiceforge.infra.jobqueue.embedded import EmbeddedQueue
from voiceforge.infra.webhooks.http import HttpWebhookSender
from voiceforge.infra.webhooks.signing import new_secret, signed_headers
from voiceforge.services.access import OWNER, trusted
from voiceforge.services.job_intake import JobRequest
from voiceforge.services.job_news import JobNews
from voiceforge.services.job_sweep import Workplace
from voiceforge.services.old_news import Forgotten, OldNews
from voiceforge.services.samples import sample_recordings
from voiceforge.services.webhook_delivery import DeliveryRules, WebhookDelivery
from voiceforge.services.webhook_events import message
from voiceforge.services.webhook_schedule import MOST_ATTEMPTS
from voiceforge.services.webhook_workers import WebhookWorkers
from voiceforge.services.webhooks import CALLBACKS, Webhooks
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.fake_engine import says_by_length
from voiceforge.testing.job_house import TestClock, job_house
from voiceforge.testing.memory_blobs import MemoryBlobs
from voiceforge.testing.webhook_receiver import Answer, Message, WebhookReceiver, webhook_receiver

TENANT = "default"
DAY_S = 86_400.0
HOUR_S = 3600.0


class ListeningQueue(EmbeddedQueue):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Task] = []

    async def offer(self, tasks: Sequence[Task]) -> None:
        self.told += tasks
        await super().offer(tasks)


@dataclass
class Post:
    """One process' part in webhooks, around a database; its clock can be put forward."""

    database: Database
    allow: tuple[str, ...]
    timeout_s: float = 5.0
    workplace: Workplace = field(default_factory=Workplace.here)
    callback_secret: str | None = None
    sender: HttpWebhookSender | None = None

    def __post_init__(self) -> None:
        self.clock = TestClock()
        self.queue = ListeningQueue()
        self.metrics = Metrics("test")
        self.news = JobNews(self.queue)
        sender = self.sender or HttpWebhookSender(timeout_s=self.timeout_s, allow_hosts=self.allow)
        self.webhooks = Webhooks(
            database=self.database,
            sender=sender,
            queue=self.queue,
            clock=self.clock,
            fixed_signer=self.callback_secret is not None,
        )
        self.delivery = WebhookDelivery(
            database=self.database,
            sender=sender,
            queue=self.queue,
            workplace=self.workplace,
            metrics=self.metrics,
            rules=DeliveryRules(lease_s=40.0, per_host=2),
            callback_secret=self.callback_secret,
            clock=self.clock,
        )

    async def hook(self, url: str, *events: str, tenant: str = TENANT) -> tuple[str, str]:
        """Its id and its secret."""
        made = await self.webhooks.add(trusted(tenant), url, events or ("transcription.completed",))
        return made.webhook.id, made.secret

    async def ended(
        self,
        status: JobStatus = JobStatus.COMPLETED,
        *,
        tenant: str = TENANT,
        callback_url: str | None = None,
        error: JobError | None = None,
    ) -> str:
        """A job that came to this; its id."""
        now = self.clock()
        new = NewJob(
            new_id("tr", now), tenant, Rank.NORMAL, "m", {}, {"order": 7}, now, callback_url=callback_url
        )
        async with self.database.transaction() as connection:
            await transcriptions.add(connection, new)
            job = await transcriptions.get(connection, tenant, new.id)
            assert job is not None
            await self.news.status(connection, job, status, now, error, 12.5)
        return new.id

    async def log(self, webhook_id: str) -> Sequence[Delivery]:
        return await self.webhooks.deliveries(OWNER, webhook_id)

    async def only(self, webhook_id: str) -> Delivery:
        (delivery,) = await self.log(webhook_id)
        return delivery

    async def send_all(self) -> int:
        """What is due now; how many that were."""
        count = 0
        while await self.delivery.run_next():
            count += 1
        return count


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with webhook_receiver() as one:
        yield one


@pytest.fixture
def post(database: Database, receiver: WebhookReceiver) -> Post:
    return Post(database, (receiver.host,))


def verified(message: Message, secret: str) -> dict[str, Any]:
    told: dict[str, Any] = StandardWebhook(secret).verify(message.body, dict(message.headers))
    return told


async def test_tells_what_happened_to_those_who_want_to_know(post: Post, receiver: WebhookReceiver) -> None:
    _, secret = await post.hook(receiver.url, "transcription.completed", "transcription.failed")
    await post.hook(receiver.url, tenant="another")
    done = await post.ended()
    error = JobError("invalid_audio", "audio_unreadable", "this is no audio", False)
    failed = await post.ended(JobStatus.FAILED, error=error)
    for status in (JobStatus.CANCELLED, JobStatus.QUEUED, JobStatus.RUNNING):
        await post.ended(status)
    assert await post.send_all() == 2
    told = {message.id: verified(message, secret) for message in await receiver.arrived(2)}
    assert len(receiver.received) == len(told) == 2
    by_job = {one["data"]["id"]: (event_id, one) for event_id, one in told.items()}
    event_id, completed = by_job[done]
    assert completed["type"] == "transcription.completed"
    assert completed["id"] == event_id
    assert completed["timestamp"].endswith("Z")
    assert completed["data"] == {
        "id": done,
        "status": "completed",
        "model": "m",
        "duration": 12.5,
        "metadata": {"order": 7},
        "batch_id": None,
    }
    assert by_job[failed][1]["data"]["error"] == {
        "kind": "invalid_audio",
        "code": "audio_unreadable",
        "message": "this is no audio",
        "retryable": False,
    }
    assert post.metrics.total("webhook_deliveries", outcome="delivered") == 2


async def test_a_job_that_was_worked_on_is_told_of(
    post: Post, receiver: WebhookReceiver, tmp_path: Path
) -> None:
    """From its acceptance to the callback, nothing of what was said in it."""
    _, secret = await post.hook(receiver.url)
    signer = (await post.webhooks.rotate(OWNER, CALLBACKS)).secret
    house = job_house(
        post.database,
        MemoryBlobs(),
        tmp_path,
        vad=SileroModel(),
        script=says_by_length(),
        news=lambda: post.news,
        check_callback=post.webhooks.check_callback,
    )
    async with house as at_work:
        recording = sample_recordings()[0]
        request = JobRequest(recording, TranscribeOptions(), callback_url=receiver.url + "/callback")
        job = (await at_work.jobs.submit(request)).job
        with pytest.raises(UrlRefused):
            await at_work.jobs.submit(
                JobRequest(recording, TranscribeOptions(), callback_url="http://10.0.0.1/")
            )
        at_work.start()
        async for _ in at_work.jobs.events(OWNER, job.id):
            pass
        text = (await at_work.jobs.transcript(OWNER, job.id)).text
    assert await post.send_all() == 2
    by_path = {message.path: message for message in await receiver.arrived(2)}
    hooked, called = verified(by_path["/hook"], secret), verified(by_path["/hook/callback"], signer)
    assert hooked == called
    assert hooked["data"]["id"] == job.id
    assert hooked["data"]["duration"] == pytest.approx(9.963)
    assert text
    assert text not in by_path["/hook"].body.decode()


async def test_openai_s_client_unwraps_it(post: Post, receiver: WebhookReceiver) -> None:
    """It knows no such type, and hands it out with its own classes' fields all the same."""
    _, secret = await post.hook(receiver.url)
    job_id = await post.ended()
    await post.send_all()
    (one,) = await receiver.arrived(1)
    client = openai.OpenAI(api_key="none", webhook_secret=secret)
    event: Any = client.webhooks.unwrap(one.body, dict(one.headers))
    assert (event.type, event.id) == ("transcription.completed", one.id)
    assert event.data.id == job_id
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(one.body + b" ", dict(one.headers))


async def test_what_was_undone_is_not_told(post: Post, receiver: WebhookReceiver) -> None:
    webhook_id, _ = await post.hook(receiver.url)

    async def change_ones_mind() -> None:
        async with post.database.transaction() as connection:
            now = post.clock()
            new = NewJob(new_id("tr", now), TENANT, Rank.NORMAL, "m", {}, {}, now)
            await transcriptions.add(connection, new)
            job = await transcriptions.get(connection, TENANT, new.id)
            assert job is not None
            await post.news.status(connection, job, JobStatus.COMPLETED, now)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await change_ones_mind()
    assert await post.log(webhook_id) == []
    assert post.queue.told == []


async def test_the_queue_is_told_once_it_is_committed(post: Post, receiver: WebhookReceiver) -> None:
    webhook_id, _ = await post.hook(receiver.url)
    await post.ended()
    delivery = await post.only(webhook_id)
    assert post.queue.told == [Task(TaskKind.DELIVERY, delivery.id, Lane.MAINTENANCE)]
    assert await post.delivery.run(delivery.id)
    assert not await post.delivery.run(delivery.id)
    assert (await post.only(webhook_id)).status is DeliveryStatus.DELIVERED


async def test_a_callback_is_signed_by_the_tenant_s_own_secret(post: Post, receiver: WebhookReceiver) -> None:
    secret = (await post.webhooks.rotate(OWNER, CALLBACKS)).secret
    await post.ended(JobStatus.CANCELLED, callback_url=receiver.url + "?token=t")
    await post.ended()  # names none
    assert await post.send_all() == 1
    (one,) = await receiver.arrived(1)
    assert one.path == "/hook?token=t"
    assert verified(one, secret)["type"] == "transcription.cancelled"
    assert await post.webhooks.list(OWNER) == []


async def test_the_signer_of_callbacks_is_made_once_where_many_need_it_at_once(
    post: Post, receiver: WebhookReceiver
) -> None:
    await asyncio.gather(*(post.ended(callback_url=f"{receiver.url}/{n}") for n in range(8)))
    assert await post.send_all() == 8
    signer = await post.webhooks.show(OWNER, CALLBACKS)
    for one in await receiver.arrived(8):
        verified(one, signer.secrets[0].secret)


async def test_the_settings_may_hold_the_secret_of_callbacks(
    database: Database, receiver: WebhookReceiver
) -> None:
    secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
    post = Post(database, (receiver.host,), callback_secret=secret)
    await post.ended(callback_url=receiver.url)
    await post.send_all()
    verified((await receiver.arrived(1))[0], secret)
    with pytest.raises(Conflict):
        await post.webhooks.rotate(OWNER, CALLBACKS)


async def test_who_disabled_callbacks_gets_none(post: Post, receiver: WebhookReceiver) -> None:
    await post.webhooks.change(OWNER, CALLBACKS, enabled=False)
    await post.ended(callback_url=receiver.url)
    assert await post.send_all() == 0


async def test_tries_again_later_as_the_same_event(post: Post, receiver: WebhookReceiver) -> None:
    webhook_id, secret = await post.hook(receiver.url)
    receiver.answer(500, Answer(breaks=True), 302, 204)
    await post.ended()
    waits = []
    for _ in range(3):
        assert await post.send_all() == 1
        delivery = await post.only(webhook_id)
        assert delivery.status is DeliveryStatus.WAITING
        waits.append(delivery.available_at - post.clock())
        post.clock.ahead_s += waits[-1] - 0.5
        assert await post.send_all() == 0
        post.clock.ahead_s += 1
    assert await post.send_all() == 1
    messages = await receiver.arrived(4)
    assert len({message.id for message in messages}) == 1
    assert len({message.body for message in messages}) == 1
    for one in messages:  # not more than minutes apart from now
        verified(one, secret)
    delivery = await post.only(webhook_id)
    assert (delivery.status, delivery.attempts) == (DeliveryStatus.DELIVERED, 4)
    assert [(one.status, one.error) for one in delivery.log] == [
        (500, "refused"),
        (None, "upstream_failed"),
        (302, "refused"),
        (204, None),
    ]
    assert all(one.took_s is not None for one in delivery.log)
    assert 4 <= waits[0] <= 5
    assert 24 <= waits[1] <= 30
    assert 96 <= waits[2] <= 120
    assert post.metrics.total("webhook_deliveries", outcome="retried") == 3


async def test_gives_up_within_a_day(post: Post, receiver: WebhookReceiver) -> None:
    webhook_id, _ = await post.hook(receiver.url)
    receiver.answer(500)
    await post.ended()
    began = post.clock()
    while (delivery := await post.only(webhook_id)).status is DeliveryStatus.WAITING:
        post.clock.ahead_s += max(delivery.available_at - post.clock() + 0.01, 0.0)
        assert await post.send_all() == 1
    assert delivery.status is DeliveryStatus.FAILED
    assert 12 * HOUR_S < post.clock() - began < 24 * HOUR_S
    assert len(receiver.received) == len(delivery.log) == MOST_ATTEMPTS
    assert {message.id for message in receiver.received} == {delivery.event_id}
    assert post.metrics.total("webhook_deliveries", outcome="failed") == 1


@pytest.mark.parametrize(
    ("status", "asked", "least_s", "most_s"),
    [(429, "120", 120, 121), (503, "999999", 900, 901), (500, "120", 4, 5), (429, "soon", 4, 5)],
)
async def test_waits_as_long_as_the_receiver_asks_for_within_bounds(
    post: Post, receiver: WebhookReceiver, status: int, asked: str, least_s: float, most_s: float
) -> None:
    webhook_id, _ = await post.hook(receiver.url)
    receiver.answer(Answer(status, {"Retry-After": asked}))
    await post.ended()
    began = post.clock()
    await post.send_all()
    wait_s = (await post.only(webhook_id)).available_at - began
    assert least_s <= wait_s <= most_s + (post.clock() - began)


async def test_a_receiver_that_is_gone_is_not_asked_again(post: Post, receiver: WebhookReceiver) -> None:
    webhook_id, _ = await post.hook(receiver.url)
    receiver.answer(410)
    await post.ended()
    await post.ended()
    await post.ended(callback_url=receiver.url)
    assert await post.send_all() == 4  # of which one was not sent: the webhook was disabled by then
    assert not (await post.webhooks.show(OWNER, webhook_id)).enabled
    assert (await post.webhooks.show(OWNER, CALLBACKS)).enabled  # others' callbacks go elsewhere
    statuses = Counter(delivery.status for delivery in await post.log(webhook_id))
    assert statuses == {DeliveryStatus.FAILED: 3}
    assert {one.error for delivery in await post.log(webhook_id) for one in delivery.log} == {
        "refused",
        "webhook_disabled",
    }
    before = len(receiver.received)
    await post.ended()
    assert await post.send_all() == 0
    assert len(receiver.received) == before


async def test_a_receiver_that_never_answers_is_given_up_in_time(
    database: Database, receiver: WebhookReceiver
) -> None:
    post = Post(database, (receiver.host,), timeout_s=0.2)
    webhook_id, _ = await post.hook(receiver.url)
    receiver.answer(Answer(after=asyncio.Event()))
    await post.ended()
    await post.send_all()
    (attempt,) = (await post.only(webhook_id)).log
    assert (attempt.status, attempt.error) == (None, "deadline_exceeded")


async def test_an_answer_without_end_is_an_answer(post: Post, receiver: WebhookReceiver) -> None:
    webhook_id, _ = await post.hook(receiver.url)
    receiver.answer(Answer(200, body=b"x" * 65536, endless=True))
    await post.ended()
    await post.send_all()
    assert (await post.only(webhook_id)).status is DeliveryStatus.DELIVERED


async def test_a_slow_receiver_holds_nobody_up(post: Post, receiver: WebhookReceiver) -> None:
    async with webhook_receiver() as slow:
        post = Post(post.database, (receiver.host, slow.host))
        await post.hook(slow.url)
        ready = asyncio.Event()
        slow.answer(Answer(after=ready))
        for _ in range(10):
            await post.ended()
        await post.hook(receiver.url)
        for _ in range(10):
            await post.ended()
        working = asyncio.create_task(WebhookWorkers(post.delivery, post.queue, count=4).run())
        await receiver.arrived(10)
        await slow.arrived(2)
        assert len(slow.received) == 2  # as many as one host may have at a time
        ready.set()
        await slow.arrived(20)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        assert max(Counter(message.id for message in slow.received).values()) == 1


async def test_goes_out_soon_after_it_happened_though_nobody_looks(
    post: Post, receiver: WebhookReceiver
) -> None:
    await post.hook(receiver.url)
    working = asyncio.create_task(WebhookWorkers(post.delivery, post.queue, count=2).run())
    await post.ended()
    await receiver.arrived(1)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


async def test_competing_processes_send_each_event_once(
    database: Database, receiver: WebhookReceiver
) -> None:
    posts = [Post(database, (receiver.host,)) for _ in range(4)]
    await posts[0].hook(receiver.url)
    for _ in range(40):
        await posts[0].ended()
    assert sum(await asyncio.gather(*(post.send_all() for post in posts))) == 40
    assert len(receiver.received) == len({message.id for message in receiver.received}) == 40


async def test_a_process_that_stops_gives_back_what_it_was_sending(
    post: Post, receiver: WebhookReceiver
) -> None:
    webhook_id, _ = await post.hook(receiver.url)
    receiver.answer(Answer(after=asyncio.Event()), 200)
    await post.ended()
    sending = asyncio.create_task(post.delivery.run_next())
    await receiver.arrived(1)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert (await post.only(webhook_id)).attempts == 0
    assert await post.send_all() == 1
    first, second = await receiver.arrived(2)
    assert first.id == second.id


class FullDatabase(Database):
    """Has no room for so many of the next transactions."""

    refused = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        if self.refused:
            self.refused -= 1
            raise StorageFull("the database has no room left")
        async with super().transaction() as connection:
            yield connection


async def test_what_a_full_database_does_not_take_is_written_down_once_there_is_room(
    database_url: str, receiver: WebhookReceiver
) -> None:
    database, answered = FullDatabase(database_url), asyncio.Event()
    post = Post(database, (receiver.host,))
    webhook_id, _ = await post.hook(receiver.url)
    receiver.answer(Answer(after=answered))
    await post.ended()
    sending = asyncio.create_task(post.delivery.run_next())
    await receiver.arrived(1)
    database.refused = 1
    answered.set()
    assert await sending
    delivery = await post.only(webhook_id)
    assert (delivery.status, delivery.attempts, database.refused) == (DeliveryStatus.DELIVERED, 1, 0)

    answered.clear()
    await post.ended()
    sending = asyncio.create_task(post.delivery.run_next())
    await receiver.arrived(2)
    database.refused = 1
    sending.cancel()  # it cannot be given back, and ends all the same
    with pytest.raises(asyncio.CancelledError):
        await sending
    await database.close()


async def test_what_nobody_was_told_of_is_found_by_the_next_process(
    database: Database, receiver: WebhookReceiver
) -> None:
    """Killed between the commit and the sending."""
    dead = Post(database, (receiver.host,))
    await dead.hook(receiver.url)
    await dead.ended()
    heir = Post(database, (receiver.host,))
    await heir.delivery.sweep()
    assert [task.kind for task in heir.queue.told] == [TaskKind.DELIVERY]
    assert heir.metrics.total("webhook_deliveries_waiting") == 1
    assert await heir.send_all() == 1


async def test_what_a_dead_machine_was_sending_goes_on_when_its_lease_ends(
    post: Post, receiver: WebhookReceiver
) -> None:
    webhook_id, _ = await post.hook(receiver.url)
    await post.ended()
    far = Post(post.database, (), workplace=Workplace("elsewhere", 1, 1))
    assert await far.delivery.take() is not None
    assert (await post.only(webhook_id)).is_sending
    await post.delivery.sweep()  # cannot know
    assert await post.send_all() == 0
    post.clock.ahead_s += 41
    assert await post.send_all() == 1
    delivery = await post.only(webhook_id)
    assert [one.error for one in delivery.log] == ["interrupted", None]


_SENDS_AND_HANGS = """
import asyncio, sys
from voiceforge.infra.db.database import Database
from voiceforge.infra.jobqueue.embedded import EmbeddedQueue
from voiceforge.infra.webhooks.http import HttpWebhookSender
from voiceforge.services.job_sweep import Workplace
from voiceforge.services.webhook_delivery import WebhookDelivery
from voiceforge.telemetry.metrics import Metrics

url, host = sys.argv[1:]
asyncio.run(WebhookDelivery(
    database=Database(url), sender=HttpWebhookSender(allow_hosts=[host]), queue=EmbeddedQueue(),
    workplace=Workplace.here(), metrics=Metrics("test"),
).run_next())
"""


async def test_a_process_killed_while_it_sends_loses_nothing(
    post: Post, database_url: str, receiver: WebhookReceiver
) -> None:
    webhook_id, secret = await post.hook(receiver.url)
    receiver.answer(Answer(after=asyncio.Event()), 200)
    await post.ended()
    process = subprocess.Popen([sys.executable, "-c", _SENDS_AND_HANGS, database_url, receiver.host])  # noqa: ASYNC220
    try:
        await receiver.arrived(1)
    finally:
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
    assert await post.send_all() == 0
    await post.delivery.sweep()
    assert await post.send_all() == 1
    first, second = await receiver.arrived(2)
    assert first.id == second.id
    assert first.body == second.body
    verified(second, secret)
    assert [one.error for one in (await post.only(webhook_id)).log] == ["interrupted", None]


@dataclass
class ChangingNames:
    """A resolver whose answer changes after it was asked so many times."""

    answers: list[str]
    asked: int = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return [self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]]


async def test_a_name_that_leads_to_us_by_now_is_refused_again(
    database: Database, receiver: WebhookReceiver
) -> None:
    """Public when it was named, private when it is sent to."""
    port = receiver.host.rpartition(":")[2]
    names = ChangingNames(["93.184.215.14", "127.0.0.1"])
    post = Post(database, (), sender=HttpWebhookSender(resolver=names))
    webhook_id, _ = await post.hook(f"http://receiver.example:{port}/hook")
    await post.ended()
    await post.send_all()
    (attempt,) = (await post.only(webhook_id)).log
    assert (attempt.status, attempt.error) == (None, "url_refused")
    assert names.asked == 2
    assert receiver.received == []


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/hook",
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]:9/",
        "http://localhost/",
        "ftp://example.com/",
        "example.com/hook",
        "http://user:pw@example.com/",
        "http://exa mple.com/",
        "",
        "http://\ud800.com/",
    ],
)
async def test_urls_that_are_refused_when_they_are_named(url: str) -> None:
    sender = HttpWebhookSender()
    with pytest.raises(UrlRefused):
        await sender.check(url)
    with pytest.raises(UrlRefused):
        await sender.send(url, {}, b"")
    webhooks = Webhooks(database=Database("sqlite://"), sender=sender, queue=EmbeddedQueue())
    with pytest.raises(UrlRefused) as caught:
        await webhooks.check_callback(url)
    assert caught.value.field == "callback_url"


async def test_a_name_without_an_address_may_have_one_later() -> None:
    async def nowhere(host: str, port: int) -> Sequence[str]:
        raise OSError

    await HttpWebhookSender(resolver=nowhere).check("https://receiver.example/hook")


async def test_both_secrets_sign_while_they_overlap(post: Post, receiver: WebhookReceiver) -> None:
    webhook_id, old = await post.hook(receiver.url)
    new = (await post.webhooks.rotate(OWNER, webhook_id, overlap_s=200.0)).secret
    await post.ended()
    await post.send_all()
    (during,) = await receiver.arrived(1)
    verified(during, new)
    verified(during, old)
    post.clock.ahead_s += 201
    await post.ended()
    await post.send_all()
    after = (await receiver.arrived(2))[1]
    verified(after, new)
    with pytest.raises(WebhookVerificationError):
        verified(after, old)


async def test_a_secret_that_leaked_goes_at_once(post: Post, receiver: WebhookReceiver) -> None:
    webhook_id, old = await post.hook(receiver.url)
    for _ in range(8):
        new = (await post.webhooks.rotate(OWNER, webhook_id)).secret
    webhook = await post.webhooks.show(OWNER, webhook_id)
    assert len(webhook.secrets) == 5
    new = (await post.webhooks.rotate(OWNER, webhook_id, overlap_s=0.0)).secret
    await post.ended()
    await post.send_all()
    (one,) = await receiver.arrived(1)
    assert len(one.headers["webhook-signature"].split(" ")) == 1
    verified(one, new)
    assert old != new


async def test_a_replay_is_the_same_event(post: Post, receiver: WebhookReceiver) -> None:
    webhook_id, secret = await post.hook(receiver.url)
    await post.ended()
    await post.send_all()
    delivery = await post.only(webhook_id)
    again = await post.webhooks.replay(OWNER, webhook_id, delivery.id)
    assert (again.status, again.attempts, again.event_id) == (DeliveryStatus.WAITING, 0, delivery.event_id)
    await post.send_all()
    first, second = await receiver.arrived(2)
    assert (first.id, first.body) == (second.id, second.body)
    verified(second, secret)
    assert len((await post.only(webhook_id)).log) == 2


async def test_what_is_being_sent_is_not_replayed(post: Post, receiver: WebhookReceiver) -> None:
    webhook_id, _ = await post.hook(receiver.url)
    await post.ended()
    claim = await post.delivery.take()
    assert claim is not None
    with pytest.raises(Conflict):
        await post.webhooks.replay(OWNER, webhook_id, claim.delivery.id)
    await post.delivery.send(claim)
    with pytest.raises(NotFound):
        await post.webhooks.replay(trusted("another"), webhook_id, claim.delivery.id)


async def test_what_waits_goes_to_the_new_url(post: Post, receiver: WebhookReceiver) -> None:
    async with webhook_receiver() as new:
        post = Post(post.database, (receiver.host, new.host))
        webhook_id, _ = await post.hook(receiver.url)
        await post.ended()
        await post.webhooks.change(OWNER, webhook_id, url=new.url)
        assert await post.send_all() == 1
        await new.arrived(1)
        assert receiver.received == []


async def test_nothing_of_an_erased_job_or_a_deleted_webhook_is_sent(
    post: Post, receiver: WebhookReceiver
) -> None:
    webhook_id, _ = await post.hook(receiver.url)
    other_id, _ = await post.hook(receiver.url)
    job_id = await post.ended()
    await post.webhooks.remove(OWNER, other_id)
    async with post.database.transaction() as connection:
        await transcriptions.forget(connection, job_id)
    assert await post.log(webhook_id) == []
    assert await post.send_all() == 0


async def test_a_webhook_deleted_while_jobs_end_breaks_none_of_them(
    post: Post, receiver: WebhookReceiver
) -> None:
    ids = [(await post.hook(receiver.url))[0] for _ in range(10)]

    async def end_some() -> None:
        for _ in range(10):
            await post.ended()

    async def remove_all() -> None:
        for webhook_id in ids:
            await post.webhooks.remove(OWNER, webhook_id)

    await asyncio.gather(end_some(), end_some(), remove_all())
    assert await post.send_all() == 0


async def test_a_test_event_is_delivered_as_any_other(post: Post, receiver: WebhookReceiver) -> None:
    webhook_id, secret = await post.hook(receiver.url)
    made = await post.webhooks.test(OWNER, webhook_id)
    assert await post.delivery.run(made.id)
    (one,) = await receiver.arrived(1)
    assert verified(one, secret)["type"] == "webhook.test"


async def test_deliveries_go_with_their_log_once_they_are_over_for_long(
    post: Post, receiver: WebhookReceiver
) -> None:
    webhook_id, _ = await post.hook(receiver.url)
    await post.ended()
    tried = await post.webhooks.test(OWNER, webhook_id)
    assert await post.send_all() == 2
    old = OldNews(database=post.database, events_s=DAY_S, deliveries_s=30 * DAY_S, clock=post.clock)
    post.clock.ahead_s = 29 * DAY_S
    assert await old.forget() == Forgotten()
    replayed = next(one for one in await post.log(webhook_id) if one.id != tried.id)
    await post.webhooks.replay(OWNER, webhook_id, replayed.id)
    post.clock.ahead_s = 40 * DAY_S
    assert await old.forget() == Forgotten(deliveries=1)  # the other one waits, however old it is
    assert (await post.only(webhook_id)).id == replayed.id
    async with post.database.reading() as connection:
        assert await events.get(connection, tried.event_id) is None
    assert await post.send_all() == 1
    assert await old.forget() == Forgotten()
    post.clock.ahead_s = 71 * DAY_S
    assert await old.forget() == Forgotten(deliveries=1)
    async with post.database.reading() as connection:
        assert await events.get(connection, replayed.event_id) is not None  # it is the job's


async def test_takes_the_next_by_the_index(post: Post, receiver: WebhookReceiver) -> None:
    query = (
        "SELECT id FROM deliveries WHERE status = 'waiting' AND available_at <= 1e12"
        " ORDER BY available_at LIMIT 1"
    )
    explain = "EXPLAIN QUERY PLAN " if post.database.is_sqlite else "EXPLAIN "
    async with post.database.reading() as connection:
        if not post.database.is_sqlite:
            await connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = " ".join(str(row) for row in await connection.execute(text(explain + query)))
    assert "ix_deliveries_waiting" in plan


@pytest.mark.parametrize("number", [0, 1])
def test_the_documented_ways_to_verify_a_message_work(number: int) -> None:
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.S)[number]
    secret, other = new_secret(), new_secret()
    names: dict[str, Any] = {}
    exec(code.replace("whsec_…", secret), names)
    body = message(Event(1, "evt_1", TENANT, None, None, "transcription.completed", {"id": "ä"}, time.time()))
    arguments = () if number == 0 else (secret,)
    headers = signed_headers("evt_1", int(time.time()), body, [other, secret])
    assert names["receive"](body, headers, *arguments)["data"] == {"id": "ä"}
    with pytest.raises((WebhookVerificationError, ValueError)):
        names["receive"](body, signed_headers("evt_1", int(time.time()), body, [other]), *arguments)
    with pytest.raises((WebhookVerificationError, ValueError)):
        names["receive"](body, signed_headers("evt_1", int(time.time()) - 600, body, [secret]), *arguments)
