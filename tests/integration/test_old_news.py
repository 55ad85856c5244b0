"""What is old is not told in every detail any more, and what somebody still waits for stays."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text

from voiceforge.infra.db import events
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.records import JobStatus
from voiceforge.infra.db.tables import OF_CHUNKS
from voiceforge.services.access import OWNER
from voiceforge.services.job_intake import JobRequest
from voiceforge.services.job_news import JobNews
from voiceforge.services.old_news import Forgotten, OldNews
from voiceforge.services.recordings import AudioBytes
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.job_house import JobHouse, TestClock, job_house
from voiceforge.testing.memory_blobs import MemoryBlobs

_, DICKENS = sample_recordings()
ME = "default"
DAY_S = 86_400.0


@pytest.fixture(scope="module")
def vad() -> SileroModel:
    return SileroModel()


@pytest_asyncio.fixture
async def make(database: Database, tmp_path: Path, vad: SileroModel) -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def make() -> JobHouse:
            house = job_house(database, MemoryBlobs(), tmp_path, vad=vad)
            return await stack.enter_async_context(house)

        yield make


def old_news(database: Database, clock: TestClock) -> OldNews:
    return OldNews(database=database, events_s=7 * DAY_S, deliveries_s=30 * DAY_S, clock=clock)


async def kinds(database: Database, job_id: str) -> list[str]:
    async with database.reading() as connection:
        found = await events.of(connection, ME, job_id, after=0)
    return [event.type.removeprefix("transcription.") for event in found]


async def test_chunks_of_what_is_over_go_and_its_beginning_and_end_stay(make: Any) -> None:
    house = await make()
    job_id = (await house.jobs.submit(JobRequest(DICKENS, TranscribeOptions()))).job.id
    assert await house.runner.run(job_id)
    assert "chunk" in await kinds(house.database, job_id)
    house.clock.ahead_s = 6 * DAY_S
    assert await old_news(house.database, house.clock).forget() == Forgotten()
    house.clock.ahead_s = 7 * DAY_S + 60
    assert await old_news(house.database, house.clock).forget() == Forgotten(jobs=1)
    assert await kinds(house.database, job_id) == ["queued", "completed"]
    assert await old_news(house.database, house.clock).forget() == Forgotten()


@pytest.mark.parametrize("over", [JobStatus.FAILED, None])
async def test_what_may_go_on_behind_its_chunks_keeps_their_events(make: Any, over: JobStatus | None) -> None:
    """A failed one that is tried again has to tell all of its text, and so has one that is not over."""
    house = await make()
    data = b"this is no audio at all"
    source = AudioBytes((data,), hashlib.sha256(data).digest())
    job = (await house.jobs.submit(JobRequest(source, TranscribeOptions()))).job
    async with house.database.transaction() as connection:
        await JobNews().chunk(connection, job, 0, 0.0, 30.0, house.clock())
    if over:
        assert await house.runner.run(job.id)
        assert (await house.jobs.show(OWNER, job.id)).job.status is over
    house.clock.ahead_s = 100 * DAY_S
    assert await old_news(house.database, house.clock).forget() == Forgotten()
    assert await kinds(house.database, job.id) == ["queued", "chunk", *([over] if over else [])]


async def test_old_chunks_are_found_by_their_index(database: Database) -> None:
    query = f"SELECT transcription_id FROM events WHERE events.{OF_CHUNKS} AND created_at < 1"
    explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
    async with database.reading() as connection:
        if not database.is_sqlite:
            await connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = " ".join(str(row) for row in await connection.execute(text(explain + query)))
    assert "ix_events_of_chunks" in plan
