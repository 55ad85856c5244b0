"""Texts and audio go when their time is over, and nothing of them stays; what belongs to nothing goes too."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from voiceforge.errors import Conflict, NotFound, Unavailable
from voiceforge.infra.blobs.local_disk import LocalDiskBlobs
from voiceforge.infra.db import recordings, search_index
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.migrate import Migrations
from voiceforge.infra.db.records import JobStatus, Recording, Retention
from voiceforge.services.access import OWNER, trusted
from voiceforge.services.chores import OwnChores
from voiceforge.services.job_intake import JobRequest
from voiceforge.services.leftovers import Leftovers, Removed
from voiceforge.services.retention import Erased, Orphans, RetentionSweep
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.engines.base import DecodeOptions, Hypothesis
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.fake_engine import says_by_length
from voiceforge.testing.job_house import JobHouse, TestClock, job_house

BECKETT, DICKENS = sample_recordings()
ME = "default"

DAY_S = 86_400.0


@pytest.fixture(scope="module")
def vad() -> SileroModel:
    return SileroModel()


@pytest.fixture
def blobs(tmp_path: Path) -> LocalDiskBlobs:
    return LocalDiskBlobs(tmp_path / "blobs")


@pytest_asyncio.fixture
async def make(
    database: Database, blobs: LocalDiskBlobs, tmp_path: Path, vad: SileroModel
) -> AsyncIterator[Callable[..., Any]]:
    (tmp_path / "tmp").mkdir()
    async with AsyncExitStack() as stack:

        async def make(script: Any = None, **wishes: Any) -> JobHouse:
            house = job_house(database, blobs, tmp_path / "tmp", vad=vad, script=script, **wishes)
            return await stack.enter_async_context(house)

        yield make


def sweep_of(house: JobHouse, tmp_path: Path) -> RetentionSweep:
    return RetentionSweep(
        database=house.database,
        blobs=house.blobs,
        jobs=house.jobs,
        orphan_age_s=DAY_S,
        clock=house.clock,
    )


async def done(house: JobHouse, source: Path = BECKETT, **wishes: Any) -> str:
    job_id = (await house.jobs.submit(JobRequest(source, TranscribeOptions(), **wishes))).job.id
    assert await house.runner.run(job_id)
    return job_id


def stored(tmp_path: Path) -> int:
    return sum(path.is_file() for path in (tmp_path / "blobs" / "audio").rglob("*"))


async def test_what_no_policy_limits_stays(make: Any, tmp_path: Path) -> None:
    house = await make()
    job_id = await done(house)
    house.clock.ahead_s = 1000 * DAY_S
    assert await sweep_of(house, tmp_path).erase_due() == Erased()
    assert (await house.jobs.show(OWNER, job_id)).transcript
    assert stored(tmp_path) == 1


async def test_text_and_audio_each_go_in_their_time(make: Any, tmp_path: Path) -> None:
    house = await make(retention=Retention(audio_s=100, text_s=1000))
    sweep = sweep_of(house, tmp_path)
    job_id = await done(house)
    assert await sweep.erase_due() == Erased()
    house.clock.ahead_s = 101
    assert await sweep.erase_due() == Erased(texts=0, recordings=1)
    assert stored(tmp_path) == 0
    view = await house.jobs.show(OWNER, job_id)
    assert view.transcript
    assert view.job.audio_erased_at is not None
    house.clock.ahead_s = 1001
    assert await sweep.erase_due() == Erased(texts=1, recordings=0)
    with pytest.raises(NotFound, match="erased"):
        await house.jobs.transcript(OWNER, job_id)
    view = await house.jobs.show(OWNER, job_id)
    assert (view.job.status, view.transcript) == (JobStatus.COMPLETED, None)
    assert view.job.text_erased_at is not None
    assert await sweep.erase_due() == Erased()


async def test_a_request_may_wish_less_and_not_more(make: Any, tmp_path: Path) -> None:
    house = await make(retention=Retention(audio_s=100))
    shorter = await done(house, retention=Retention(audio_s=0, text_s=50))
    longer = await done(house, DICKENS, retention=Retention(audio_s=5000))
    house.clock.ahead_s = 1
    assert await sweep_of(house, tmp_path).erase_due() == Erased(0, 1)
    house.clock.ahead_s = 101
    assert await sweep_of(house, tmp_path).erase_due() == Erased(1, 1)
    assert (await house.jobs.show(OWNER, shorter)).transcript is None
    assert (await house.jobs.show(OWNER, longer)).transcript is not None
    assert stored(tmp_path) == 0


async def test_audio_stays_as_long_as_another_transcription_of_the_tenant_has_it(
    make: Any, tmp_path: Path
) -> None:
    house = await make()
    brief = await done(house, retention=Retention(audio_s=10))
    await done(house, caller=trusted("others"))
    kept = await done(house)
    assert stored(tmp_path) == 2  # one for each tenant
    house.clock.ahead_s = 11
    sweep = sweep_of(house, tmp_path)
    assert await sweep.erase_due() == Erased(0, 1)
    assert stored(tmp_path) == 2
    assert (await house.jobs.show(OWNER, brief)).job.audio_erased_at is not None
    await house.jobs.erase(OWNER, kept)
    assert stored(tmp_path) == 1
    assert (await house.jobs.show(OWNER, brief)).transcript


async def test_what_was_cancelled_or_failed_goes_too(make: Any, tmp_path: Path) -> None:
    def broken(window: np.ndarray, options: DecodeOptions) -> Hypothesis:
        raise Conflict("as the test wants it")

    house = await make(broken, retention=Retention(audio_s=10, text_s=10))
    failed = await done(house)
    cancelled = (await house.jobs.submit(JobRequest(DICKENS, TranscribeOptions()))).job.id
    await house.jobs.cancel(OWNER, cancelled)
    waiting = (await house.jobs.submit(JobRequest(DICKENS, TranscribeOptions(words=True)))).job.id
    house.clock.ahead_s = 11
    assert await sweep_of(house, tmp_path).erase_due() == Erased(2, 2)
    assert stored(tmp_path) == 1  # the waiting one's
    with pytest.raises(Conflict, match="erased"):
        await house.jobs.retry(OWNER, failed)
    assert (await house.jobs.show(OWNER, waiting)).job.status is JobStatus.QUEUED


async def test_a_job_that_is_tried_again_keeps_its_audio(make: Any, tmp_path: Path) -> None:
    house = await make(retention=Retention(audio_s=10))
    job_id = (await house.jobs.submit(JobRequest(BECKETT, TranscribeOptions()))).job.id
    await house.jobs.cancel(OWNER, job_id)
    await house.jobs.retry(OWNER, job_id)
    house.clock.ahead_s = 11
    assert await sweep_of(house, tmp_path).erase_due() == Erased()
    assert await house.runner.run(job_id)
    assert (await house.jobs.show(OWNER, job_id)).transcript


async def test_erased_words_are_in_no_file_of_sqlite(tmp_path: Path, vad: SileroModel) -> None:
    def says_names(window: np.ndarray, options: DecodeOptions) -> Hypothesis:
        first, *_ = says_by_length()(window, options).segments
        return Hypothesis((replace(first, text="Quetzalcoatl speaks.", words=()),))

    database = Database(f"sqlite:///{tmp_path}/jobs.db")
    await Migrations(database).upgrade()
    blobs = LocalDiskBlobs(tmp_path / "blobs")
    (tmp_path / "tmp").mkdir()
    async with job_house(database, blobs, tmp_path / "tmp", vad=vad, script=says_names) as house:
        brief = [await done(house, retention=Retention(text_s=10)) for _ in range(3)]
        other = await done(house, DICKENS, retention=Retention(text_s=DAY_S))
        assert files_hold(tmp_path, b"quetzalcoatl")
        sweep = sweep_of(house, tmp_path)
        house.clock.ahead_s = 11
        assert (await sweep.erase_due()).texts == len(brief)
        assert await sweep.clear_search_index()
        assert not await sweep.clear_search_index()
        assert len(await house.jobs.search(OWNER, "Quetzalcoatl")) == 1
        await house.jobs.erase(OWNER, other)
        assert await sweep.clear_search_index()
        assert await house.jobs.search(OWNER, "Quetzalcoatl") == []
        assert not files_hold(tmp_path, b"uetzalcoat")
        async with database.reading() as connection:
            assert await search_index.noted(connection) is None
    await database.close()


def files_hold(folder: Path, word: bytes) -> bool:
    return any(word in path.read_bytes().lower() for path in folder.glob("jobs.db*"))


async def test_collects_what_belongs_to_nothing_once_it_is_old(make: Any, tmp_path: Path) -> None:
    house = await make()
    used = await done(house)
    await house.blobs.put("audio/rec_nobody", b"nobody's")
    await house.blobs.put("audio/rec_unused", b"unused")
    await house.blobs.put("models/other", b"not audio")
    async with house.database.transaction() as connection:
        recording = Recording("rec_unused", ME, "0" * 64, 6, "audio/rec_unused", house.clock())
        await recordings.add(connection, recording)
    sweep = sweep_of(house, tmp_path)
    assert await sweep.collect_orphans() == Orphans()
    house.clock.ahead_s = DAY_S + 60
    found = await sweep.collect_orphans()
    assert found == Orphans(blobs=1, recordings=1)
    assert {info.key async for info in house.blobs.list()} == {
        f"audio/{(await house.jobs.show(OWNER, used)).job.recording_id}",
        "models/other",
    }
    assert await sweep.collect_orphans() == Orphans()


async def test_every_machine_clears_its_own_folders_without_a_database(tmp_path: Path) -> None:
    """Also several processes of one machine at the same time."""
    clock = TestClock()
    machines = [tmp_path / name for name in "ab"]
    everyone = []
    for machine in machines:
        for name in ("blobs/.partial/blob-x.part", "tmp/upload-x.part", "tmp/job-x/fetched", "tmp/job-y/new"):
            path = machine / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_bytes(b"x")
        everyone += [
            Leftovers(
                temp_dir=machine / "tmp",
                blobs=LocalDiskBlobs(machine / "blobs"),
                age_s=DAY_S,
                clock=clock,
            )
            for _ in range(2)
        ]
    assert [await one.remove() for one in everyone] == [Removed()] * 4
    clock.ahead_s = DAY_S + 60
    for machine in machines:
        os.utime(machine / "blobs" / ".partial" / "blob-x.part", (0, 0))
        os.utime(machine / "tmp" / "job-y", (clock(), clock()))  # somebody works in it
    (chore,) = everyone[0].chores()
    once = asyncio.Event()

    async def act() -> None:
        await chore.act()
        once.set()

    running = asyncio.create_task(OwnChores([replace(chore, act=act)]).run())
    await asyncio.wait_for(once.wait(), 20)
    running.cancel()
    removed = await asyncio.gather(*(one.remove() for one in everyone[1:]))
    assert sum(one.files for one in removed[1:]) == 2  # those of b, by either of its two
    for machine in machines:
        assert [path.name for path in (machine / "tmp").iterdir()] == ["job-y"]
        assert list((machine / "blobs" / ".partial").iterdir()) == []


async def test_goes_on_where_a_sweep_broke_off(make: Any, tmp_path: Path) -> None:
    class Away(LocalDiskBlobs):
        away = True

        async def delete(self, key: str) -> bool:
            if self.away:
                raise Unavailable("as the test wants it")
            return await super().delete(key)

    house = await make(retention=Retention(audio_s=1))
    blobs = Away(tmp_path / "blobs")
    async with job_house(house.database, blobs, tmp_path / "tmp", vad=SileroModel()) as other:
        await done(house)
        other.clock.ahead_s = 2
        with pytest.raises(Unavailable):
            await sweep_of(other, tmp_path).erase_due()
        assert stored(tmp_path) == 1
        blobs.away = False
        await sweep_of(other, tmp_path).erase_due()
        assert stored(tmp_path) == 0


async def test_the_time_of_every_chore_comes(make: Any, tmp_path: Path) -> None:
    house = await make()
    chores = sweep_of(house, tmp_path).chores()
    assert len({chore.name for chore in chores}) == len(chores) == 3
    for chore in chores:
        await chore.act()
