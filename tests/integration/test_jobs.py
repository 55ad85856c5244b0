"""Jobs from their acceptance to their end, on both databases, through good days and bad ones."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import soundfile

from voiceforge.errors import (
    Conflict,
    EngineFailed,
    InvalidRequest,
    NotFound,
    StorageFull,
    Unavailable,
    UpstreamFailed,
    VoiceForgeError,
)
from voiceforge.infra.db import leases
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.records import Event, JobFilter, JobStatus, Rank
from voiceforge.infra.fetch.base import Fetched
from voiceforge.services.access import OWNER, trusted
from voiceforge.services.job_intake import JobRequest
from voiceforge.services.job_rules import RunRules
from voiceforge.services.job_sweep import Workplace
from voiceforge.services.job_view import JobView
from voiceforge.services.recordings import AudioBytes, UrlSource
from voiceforge.services.samples import sample_recordings
from voiceforge.services.transcriptions import TranscribeRequest
from voiceforge.speech.engines.base import DecodeOptions, Hypothesis
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.fake_engine import says_by_length
from voiceforge.testing.job_house import SHORT_WINDOWS, JobHouse, job_house
from voiceforge.testing.memory_blobs import MemoryBlobs
from voiceforge.testing.postgres_server import has_postgres, postgres_server

BECKETT, DICKENS = sample_recordings()
ME = "default"
WAIT_S = 30
QUICK = RunRules(lease_s=10, heartbeat_s=0.1, look_s=0.05, backoff_s=0.05, max_attempts=3)
ONE_WINDOW = replace(SHORT_WINDOWS, best_window_s=20.0)
"""The ten seconds of Beckett: one call of the engine in each attempt."""
ELSEWHERE = Workplace("elsewhere", 1, 1)

MakeHouse = Callable[..., AbstractAsyncContextManager[JobHouse]]


@dataclass
class Held:
    """A script that stops before its nth window until it is released."""

    at: int = 0
    seen: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, window: np.ndarray, options: DecodeOptions) -> Hypothesis:
        with self.lock:
            self.seen += 1
            stops = self.seen > self.at
        if stops:
            self.reached.set()
            assert self.release.wait(WAIT_S)
        return says_by_length()(window, options)

    async def wait(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, WAIT_S)


@dataclass
class Failing:
    """A script that fails so many times first."""

    times: int
    error: VoiceForgeError

    def __call__(self, window: np.ndarray, options: DecodeOptions) -> Hypothesis:
        if self.times:
            self.times -= 1
            raise self.error
        return says_by_length()(window, options)


@dataclass
class FetchesFile:
    """Brings a file of the test's; fails so many times first."""

    failures: int = 0
    asked: list[str] = field(default_factory=list)

    async def fetch(self, url: str, target: Path) -> Fetched:
        self.asked.append(url)
        if self.failures:
            self.failures -= 1
            raise UpstreamFailed("the server is having a bad day")
        data = await asyncio.to_thread(BECKETT.read_bytes)
        await asyncio.to_thread(target.write_bytes, data)
        return Fetched(len(data), "audio/wav", "elsewhere.example")


@pytest.fixture(scope="module")
def vad() -> SileroModel:
    return SileroModel()


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest_asyncio.fixture
async def make(
    database: Database, blobs: MemoryBlobs, tmp_path: Path, vad: SileroModel
) -> AsyncIterator[Callable[..., Any]]:
    """Opens houses on the same database and store; closed at the end."""
    async with AsyncExitStack() as stack:

        async def make(script: object = None, **wishes: Any) -> JobHouse:
            wishes = {"rules": QUICK, **wishes}
            house = job_house(database, blobs, tmp_path, vad=vad, script=script, **wishes)  # type: ignore[arg-type]
            return await stack.enter_async_context(house)

        yield make


def asks(source: object = BECKETT, **wishes: Any) -> JobRequest:
    return JobRequest(source, TranscribeOptions(), **wishes)  # type: ignore[arg-type]


async def ended(house: JobHouse, job_id: str, tenant: str = ME) -> JobView:
    async with asyncio.timeout(WAIT_S):
        async for _ in house.jobs.events(trusted(tenant), job_id):
            pass
    return await house.jobs.show(trusted(tenant), job_id)


async def kinds(house: JobHouse, job_id: str) -> list[str]:
    return [
        e.type.removeprefix("transcription.")
        async for e in house.jobs.events(OWNER, job_id)
        if isinstance(e, Event)
    ]


async def until(found: Callable[[], Any], what: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await found():  # noqa: ASYNC110 - the database tells nobody
            await asyncio.sleep(0.02)


async def test_a_job_ends_with_what_the_direct_way_gives(make: Any) -> None:
    house = await make()
    house.start()
    request = asks(DICKENS, metadata={"mine": 1}, filename="dickens.wav")
    submitted = await house.jobs.submit(request)
    assert submitted.created
    view = await ended(house, submitted.job.id)
    assert (view.job.status, view.percent, view.job.metadata, view.job.filename) == (
        JobStatus.COMPLETED,
        100.0,
        {"mine": 1},
        "dickens.wav",
    )
    direct = await house.transcriptions.transcribe(TranscribeRequest(DICKENS, TranscribeOptions()))
    assert view.transcript
    assert view.transcript.text == direct.text
    assert view.transcript.segments == direct.segments
    assert view.transcript.coverage == direct.coverage
    assert await kinds(house, submitted.job.id) == ["queued", "chunk", "completed"]


async def test_events_go_on_after_the_last_that_was_seen(make: Any) -> None:
    house = await make()
    house.start()
    job_id = (await house.jobs.submit(asks(DICKENS))).job.id
    await ended(house, job_id)
    seen = [e async for e in house.jobs.events(OWNER, job_id) if isinstance(e, Event)]
    rest = [e async for e in house.jobs.events(OWNER, job_id, after=seen[0].seq) if isinstance(e, Event)]
    assert rest == seen[1:]


async def test_the_urgent_overtake(make: Any) -> None:
    house = await make()
    low = (await house.jobs.submit(asks(rank=Rank.LOW))).job.id
    normal = (await house.jobs.submit(asks())).job.id
    high = (await house.jobs.submit(asks(rank=Rank.HIGH))).job.id
    places = [(await house.jobs.show(OWNER, job_id)).queue_position for job_id in (high, normal, low)]
    assert places == [0, 1, 2]
    for _ in range(3):
        assert await house.runner.run_next(tuple(Rank))
    ends = {j: (await house.jobs.show(OWNER, j)).job.finished_at for j in (low, normal, high)}
    assert sorted(ends, key=lambda j: ends[j] or 0.0) == [high, normal, low]


async def test_same_audio_is_kept_once_and_goes_with_the_last_that_needs_it(
    make: Any, blobs: MemoryBlobs
) -> None:
    house = await make()
    first = (await house.jobs.submit(asks())).job
    second = (await house.jobs.submit(asks())).job
    other = (await house.jobs.submit(asks(caller=trusted("other")))).job
    assert first.recording_id == second.recording_id != other.recording_id
    assert len([b async for b in blobs.list()]) == 2
    await house.jobs.erase(OWNER, first.id)
    assert len([b async for b in blobs.list()]) == 2
    await house.jobs.erase(OWNER, second.id)
    assert len([b async for b in blobs.list()]) == 1
    assert await house.runner.run(other.id)
    with pytest.raises(NotFound):
        await house.jobs.show(OWNER, first.id)


async def test_audio_may_be_submitted_while_its_last_job_is_erased(make: Any, blobs: MemoryBlobs) -> None:
    house = await make()
    data = BECKETT.read_bytes()
    source = AudioBytes((data,), hashlib.sha256(data).digest())
    for _ in range(10):
        old = (await house.jobs.submit(asks(source))).job
        _, new = await asyncio.gather(house.jobs.erase(OWNER, old.id), house.jobs.submit(asks(source)))
        assert await house.runner.run(new.job.id)
        assert (await house.jobs.show(OWNER, new.job.id)).job.status is JobStatus.COMPLETED
        await house.jobs.erase(OWNER, new.job.id)
    assert [b async for b in blobs.list()] == []


async def test_tenants_do_not_see_each_other(make: Any) -> None:
    house = await make()
    job = (await house.jobs.submit(asks(caller=trusted("a"), idempotency_key="k"))).job
    for act in (
        house.jobs.show,
        house.jobs.cancel,
        house.jobs.erase,
        house.jobs.retry,
        house.jobs.transcript,
    ):
        with pytest.raises(NotFound):
            await act(trusted("b"), job.id)
    assert await house.jobs.list(trusted("b")) == []
    assert (await house.jobs.submit(asks(caller=trusted("b"), idempotency_key="k"))).created
    await house.runner.run(job.id)
    assert len(await house.jobs.search(trusted("a"), "w1")) == 1
    assert await house.jobs.search(trusted("b"), "w1") == []


async def test_one_job_for_one_key(make: Any, blobs: MemoryBlobs) -> None:
    house = await make()
    many = await asyncio.gather(*(house.jobs.submit(asks(idempotency_key="k")) for _ in range(8)))
    assert len({submitted.job.id for submitted in many}) == 1
    assert sum(submitted.created for submitted in many) == 1
    for other in (asks(DICKENS, idempotency_key="k"), asks(rank=Rank.HIGH, idempotency_key="k")):
        with pytest.raises(Conflict):
            await house.jobs.submit(other)


async def test_a_waiting_job_is_cancelled_at_once(make: Any) -> None:
    house = await make()
    job = (await house.jobs.submit(asks())).job
    assert (await house.jobs.cancel(OWNER, job.id)).status is JobStatus.CANCELLED
    assert not await house.runner.run_next(tuple(Rank))
    with pytest.raises(Conflict):
        await house.jobs.cancel(OWNER, job.id)
    with pytest.raises(Conflict):
        await house.jobs.transcript(OWNER, job.id)
    assert await kinds(house, job.id) == ["queued", "cancelled"]


async def test_a_running_job_is_cancelled_soon_and_can_be_tried_again(make: Any) -> None:
    held = Held()
    house = await make(held)
    house.start()
    job = (await house.jobs.submit(asks(DICKENS))).job
    await held.wait()
    assert (await house.jobs.cancel(OWNER, job.id)).status is JobStatus.RUNNING
    held.release.set()
    assert (await ended(house, job.id)).job.status is JobStatus.CANCELLED
    assert (await house.jobs.retry(OWNER, job.id)).status is JobStatus.QUEUED
    assert (await ended(house, job.id)).job.status is JobStatus.COMPLETED


async def test_what_may_go_well_another_time_is_tried_again(make: Any) -> None:
    house = await make(Failing(2, EngineFailed("it broke")), capabilities=ONE_WINDOW)
    house.start()
    job = (await house.jobs.submit(asks())).job
    view = await ended(house, job.id)
    assert (view.job.status, view.job.attempts, view.job.error) == (JobStatus.COMPLETED, 3, None)


@pytest.mark.parametrize("problem", [Unavailable("the store is away"), StorageFull("no room")], ids=str)
async def test_a_job_waits_for_its_store_as_long_as_that_is_away(
    make: Any, blobs: MemoryBlobs, problem: VoiceForgeError
) -> None:
    house = await make(rules=replace(QUICK, max_backoff_s=0.05))
    job = (await house.jobs.submit(asks())).job
    blobs.failing = problem
    for _ in range(2 * QUICK.max_attempts):  # more than it may fail

        async def tried() -> bool:
            return bool(await house.runner.run(job.id))

        await until(tried, "its turn")
    waiting = (await house.jobs.show(OWNER, job.id)).job
    assert (waiting.status, waiting.attempts) == (JobStatus.QUEUED, 0)
    assert waiting.error
    assert waiting.error.code == problem.code
    blobs.failing = None
    house.start()
    view = await ended(house, job.id)
    assert (view.job.status, view.job.error) == (JobStatus.COMPLETED, None)


async def test_the_folder_of_a_job_that_lasts_does_not_look_left_behind(make: Any, tmp_path: Path) -> None:
    held = Held()
    house = await make(held)
    house.start()
    job = (await house.jobs.submit(asks())).job
    await held.wait()
    (folder,) = await asyncio.to_thread(lambda: list(tmp_path.glob("job-*")))
    os.utime(folder, (0, 0))

    async def touched() -> bool:
        return folder.stat().st_mtime > 0

    await until(touched, "the next heartbeat")
    held.release.set()
    assert (await ended(house, job.id)).job.status is JobStatus.COMPLETED


async def test_what_keeps_failing_ends_with_its_reason_and_can_be_tried_again(make: Any) -> None:
    house = await make(Failing(QUICK.max_attempts, EngineFailed("it broke")), capabilities=ONE_WINDOW)
    house.start()
    job = (await house.jobs.submit(asks())).job
    view = await ended(house, job.id)
    assert (view.job.status, view.job.attempts) == (JobStatus.FAILED, QUICK.max_attempts)
    assert view.job.error
    assert view.job.error.code == "engine_failed"
    await house.jobs.retry(OWNER, job.id)
    assert (await ended(house, job.id)).job.status is JobStatus.COMPLETED


async def test_what_cannot_go_well_is_not_tried_again(make: Any) -> None:
    house = await make()
    house.start()
    data = b"this is no audio at all"
    source = AudioBytes((data,), hashlib.sha256(data).digest())
    view = await ended(house, (await house.jobs.submit(asks(source))).job.id)
    assert (view.job.status, view.job.attempts) == (JobStatus.FAILED, 1)
    assert view.job.error
    assert (view.job.error.kind, view.job.error.retryable) == ("invalid_audio", False)


async def test_a_url_is_fetched_once_and_kept(make: Any, blobs: MemoryBlobs) -> None:
    fetches = FetchesFile(failures=1)
    house = await make(Failing(1, EngineFailed("it broke")), fetcher=fetches, capabilities=ONE_WINDOW)
    house.start()
    job = (await house.jobs.submit(asks(UrlSource("https://elsewhere.example/a.wav")))).job
    view = await ended(house, job.id)
    assert (view.job.status, view.job.attempts) == (JobStatus.COMPLETED, 3)
    assert len(fetches.asked) == 2
    assert len([b async for b in blobs.list()]) == 1


async def test_without_fetching_a_url_is_a_mistake(make: Any) -> None:
    house = await make()
    house.start()
    view = await ended(house, (await house.jobs.submit(asks(UrlSource("https://x.example/")))).job.id)
    assert view.job.error
    assert view.job.error.code == InvalidRequest.code


async def test_a_stopped_process_gives_its_jobs_back_and_another_goes_on(make: Any) -> None:
    held = Held(at=10)
    first = await make(held)
    working = first.start()
    job = (await first.jobs.submit(asks(DICKENS))).job
    await held.wait()
    working.cancel()
    held.release.set()
    await asyncio.gather(working, return_exceptions=True)
    given_back = (await first.jobs.show(OWNER, job.id)).job
    assert (given_back.status, given_back.attempts) == (JobStatus.QUEUED, 0)
    second = await make()
    second.start()
    assert (await ended(second, job.id)).job.status is JobStatus.COMPLETED


async def test_a_dead_process_costs_what_it_had_not_saved(
    make: Any, database: Database, tmp_path: Path
) -> None:
    recording = tmp_path / "twice.wav"
    samples, rate_hz = soundfile.read(DICKENS, dtype="int16")
    soundfile.write(recording, np.concatenate([samples, samples]), rate_hz)
    undisturbed = await make()
    whole = (await undisturbed.jobs.submit(asks(recording))).job.id
    await undisturbed.runner.run(whole)
    expected = (await undisturbed.jobs.transcript(OWNER, whole)).segments

    held = Held(at=18)  # 88 s in windows of about 4: the first two chunks of 30 s are through
    dead = await make(held, workplace=ELSEWHERE, rules=replace(QUICK, heartbeat_s=1000, look_s=1000))
    job = (await dead.jobs.submit(asks(recording))).job
    working = asyncio.create_task(dead.runner.run(job.id))
    await held.wait()

    async def saved() -> bool:
        return "chunk" in [
            e.type.removeprefix("transcription.") for e in await events_so_far(database, job.id)
        ]

    await until(saved, "the first chunk")
    living = await make()
    assert not await living.sweep.run()  # not yet
    living.clock.ahead_s = QUICK.lease_s + 1
    assert await living.sweep.run()
    assert await living.runner.run(job.id)
    done = await living.jobs.show(OWNER, job.id)
    assert (done.job.status, done.job.attempts) == (JobStatus.COMPLETED, 1)  # it came further
    assert done.transcript
    assert done.transcript.segments == expected
    assert living.audio_s_decoded() < 0.7 * undisturbed.audio_s_decoded()

    held.release.set()  # the dead one comes to life: what it writes is not wanted any more
    await asyncio.wait_for(working, WAIT_S)
    again = await living.jobs.show(OWNER, job.id)
    assert again == replace(done, transcript=again.transcript)
    assert [e.type for e in await events_so_far(database, job.id)].count("transcription.completed") == 1


async def events_so_far(database: Database, job_id: str) -> list[Event]:
    from voiceforge.infra.db import events

    async with database.reading() as connection:
        return await events.of(connection, ME, job_id, after=0)


async def test_a_process_of_this_machine_that_died_is_not_waited_for(make: Any) -> None:
    here = Workplace.here()
    gone = replace(here, pid=2**22 + 1)
    house = await make()
    job = (await house.jobs.submit(asks())).job
    async with house.database.transaction() as connection:
        claim = await leases.claim(connection, job.id, worker=str(gone), now=house.clock(), lease_s=1000)
    assert claim
    assert await house.sweep.run()
    assert (await house.jobs.show(OWNER, job.id)).job.status is JobStatus.QUEUED


async def test_what_kills_every_worker_is_given_up(make: Any) -> None:
    house = await make()
    job = (await house.jobs.submit(asks())).job
    for attempt in range(1, QUICK.max_attempts + 1):
        async with house.database.transaction() as connection:
            claim = await leases.claim(connection, job.id, worker="x/1/1", now=house.clock(), lease_s=1)
        assert claim
        assert claim.job.attempts == attempt
        house.clock.ahead_s += 5
        await house.sweep.run()
    view = await house.jobs.show(OWNER, job.id)
    assert view.job.status is JobStatus.FAILED
    assert view.job.error
    assert view.job.error.code == "worker_lost"
    assert (await kinds(house, job.id))[-1] == "failed"


async def test_a_cancelled_job_of_a_dead_process_is_cancelled(make: Any) -> None:
    house = await make()
    job = (await house.jobs.submit(asks())).job
    async with house.database.transaction() as connection:
        await leases.claim(connection, job.id, worker="x/1/1", now=house.clock(), lease_s=1)
    await house.jobs.cancel(OWNER, job.id)
    house.clock.ahead_s = 5
    await house.sweep.run()
    assert (await house.jobs.show(OWNER, job.id)).job.status is JobStatus.CANCELLED


async def test_lists_pages_and_filters(make: Any) -> None:
    house = await make()
    ids = []
    for number in range(5):
        house.clock.ahead_s = number
        ids.append((await house.jobs.submit(asks())).job.id)
    await house.jobs.cancel(OWNER, ids[2])
    assert [v.job.id for v in await house.jobs.list(OWNER)] == ids[::-1]
    page = await house.jobs.list(OWNER, limit=2)
    assert [v.job.id for v in await house.jobs.list(OWNER, before=page[-1].job.id)] == ids[2::-1]
    cancelled = await house.jobs.list(OWNER, JobFilter(status=JobStatus.CANCELLED))
    assert [v.job.id for v in cancelled] == [ids[2]]
    middle = (await house.jobs.show(OWNER, ids[2])).job.created_at
    later = await house.jobs.list(OWNER, JobFilter(created_after=middle))
    assert [v.job.id for v in later] == [ids[4], ids[3]]
    earlier = await house.jobs.list(OWNER, JobFilter(created_before=middle))
    assert [v.job.id for v in earlier] == [ids[1], ids[0]]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("w1 w3", True),
        ("W1", True),
        ("w1 nowhere", False),
        ("w*", True),
        ('w1" OR "x', False),
        ("'", False),
        ("& | ! <->", False),
        ("nowhere*", False),
        ("", False),
    ],
)
async def test_search(make: Any, query: str, found: bool) -> None:
    house = await make()
    job = (await house.jobs.submit(asks())).job
    await house.runner.run(job.id)
    hits = await house.jobs.search(OWNER, query)
    assert [hit.job.id for hit in hits] == ([job.id] if found else [])
    if found:
        assert "«" in hits[0].excerpt
    await house.jobs.erase(OWNER, job.id)
    assert await house.jobs.search(OWNER, query) == []


@pytest.mark.skipif(not has_postgres(), reason="there is no PostgreSQL server here")
async def test_a_job_outlives_its_database(tmp_path: Path, vad: SileroModel) -> None:
    from voiceforge.infra.db.migrate import Migrations

    with postgres_server() as server:
        url = server.new_database()
        database = Database(url)
        await Migrations(database).upgrade()
        held = Held(at=2)
        async with job_house(database, MemoryBlobs(), tmp_path, vad=vad, script=held, rules=QUICK) as house:
            house.start()
            job = (await house.jobs.submit(asks(DICKENS))).job
            await held.wait()
            await asyncio.to_thread(server.kill)
            with pytest.raises(Unavailable):
                await house.jobs.submit(asks())
            held.release.set()
            await asyncio.sleep(0.5)  # it runs into the gap
            await asyncio.to_thread(server.start)

            async def shown() -> bool:
                try:
                    return (await house.jobs.show(OWNER, job.id)).job.status.is_final
                except Unavailable:
                    return False

            await until(shown, "the end")
            view = await house.jobs.show(OWNER, job.id)
            assert (view.job.status, view.job.attempts) == (JobStatus.COMPLETED, 1)
        await database.close()
