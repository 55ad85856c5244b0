"""Copies of the embedded default, made while it is used, and what comes back of them."""

from __future__ import annotations

import asyncio
import json
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from voiceforge.errors import InvalidRequest
from voiceforge.infra.blobs.local_disk import LocalDiskBlobs
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.migrate import Migrations
from voiceforge.infra.db.records import JobFilter, JobStatus
from voiceforge.services.access import OWNER
from voiceforge.services.backup import BackupDamaged, BackupFailed, Backups
from voiceforge.services.job_intake import JobRequest
from voiceforge.services.recordings import AudioBytes
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.job_house import JobHouse, job_house

BECKETT, DICKENS = sample_recordings()

Open = Callable[[Path], Any]


@pytest.fixture(scope="module")
def vad() -> SileroModel:
    return SileroModel()


@pytest_asyncio.fixture
async def open_house(vad: SileroModel) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def open_it(data_dir: Path) -> JobHouse:
            (data_dir / "tmp").mkdir(parents=True, exist_ok=True)
            database = Database(f"sqlite:///{data_dir}/voiceforge.db")
            await Migrations(database).upgrade()
            stack.push_async_callback(database.close)
            blobs = LocalDiskBlobs(data_dir / "blobs")
            return await stack.enter_async_context(job_house(database, blobs, data_dir / "tmp", vad=vad))

        yield open_it


def backups(data_dir: Path) -> Backups:
    return Backups(data_dir, version="1.2.3")


async def submit(house: JobHouse, source: object = BECKETT) -> str:
    return (await house.jobs.submit(JobRequest(source, TranscribeOptions()))).job.id  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["copy", "copy.tar"])
async def test_what_was_done_is_there_and_what_was_not_is_finished(
    open_house: Open, tmp_path: Path, name: str
) -> None:
    house = await open_house(tmp_path / "data")
    done = await submit(house)
    assert await house.runner.run(done)
    waiting = await submit(house, DICKENS)
    seen: list[tuple[int, int]] = []
    copied = await asyncio.to_thread(
        backups(tmp_path / "data").make, tmp_path / name, lambda *at: seen.append(at)
    )
    assert copied.recordings == 2
    assert seen == sorted(seen)
    assert seen[-1] == (copied.size_bytes, copied.size_bytes)
    await house.jobs.erase(OWNER, done)  # of no matter to the copy

    restored = await asyncio.to_thread(backups(tmp_path / "other").restore, tmp_path / name)
    assert restored == copied
    other = await open_house(tmp_path / "other")
    assert (await other.jobs.show(OWNER, done)).transcript
    assert (await other.jobs.show(OWNER, waiting)).job.status is JobStatus.QUEUED
    assert await other.runner.run(waiting)
    assert (await other.jobs.show(OWNER, waiting)).transcript
    assert not list_hidden(tmp_path)
    assert not list_hidden(tmp_path / "other")


def list_hidden(folder: Path) -> list[Path]:
    return list(folder.glob(".*"))


async def test_whatever_is_written_meanwhile_no_blob_is_missing(open_house: Open, tmp_path: Path) -> None:
    house = await open_house(tmp_path / "data")
    for number in range(40):
        await submit(house, AudioBytes((bytes([number]),), _digest(bytes([number]))))

    async def churn() -> None:
        number = 40
        while True:
            await submit(house, AudioBytes((number.to_bytes(4, "big"),), _digest(number.to_bytes(4, "big"))))
            (oldest,) = (await house.jobs.list(OWNER, JobFilter(), limit=100))[-1:]
            await house.jobs.erase(OWNER, oldest.job.id)
            number += 1

    writing = asyncio.create_task(churn())
    for number in range(5):
        target, other = tmp_path / f"copy{number}", tmp_path / f"data{number}"
        try:
            copied = await asyncio.to_thread(backups(tmp_path / "data").make, target)
        except BackupFailed:  # never half a one
            assert not target.exists()
            continue
        assert copied.recordings >= 35
        await asyncio.to_thread(backups(other).restore, target)
    assert not writing.done()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


def _digest(data: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(data).digest()


async def test_does_not_overwrite_unless_told_to(open_house: Open, tmp_path: Path) -> None:
    house = await open_house(tmp_path / "data")
    job_id = await submit(house)
    backups(tmp_path / "data").make(tmp_path / "copy")
    with pytest.raises(InvalidRequest, match="exists already"):
        backups(tmp_path / "data").make(tmp_path / "copy")
    await submit(house, DICKENS)
    with pytest.raises(InvalidRequest, match="--force"):
        backups(tmp_path / "data").restore(tmp_path / "copy")
    await house.database.close()
    backups(tmp_path / "data").restore(tmp_path / "copy", force=True)
    again = await open_house(tmp_path / "data")
    assert [view.job.id for view in await again.jobs.list(OWNER)] == [job_id]
    assert len([info async for info in again.blobs.list("audio")]) == 1


async def test_nothing_is_replaced_by_a_damaged_copy(open_house: Open, tmp_path: Path) -> None:
    house = await open_house(tmp_path / "data")
    job_id = await submit(house)
    backups(tmp_path / "data").make(tmp_path / "copy")
    backups(tmp_path / "data").make(tmp_path / "copy.tar")
    (blob,) = (path for path in (tmp_path / "copy" / "blobs").rglob("*") if path.is_file())
    data = bytearray(blob.read_bytes())
    data[1000] ^= 1
    blob.write_bytes(data)
    tar = bytearray((tmp_path / "copy.tar").read_bytes())
    tar[5000] ^= 1
    (tmp_path / "bent.tar").write_bytes(tar)
    (tmp_path / "cut.tar").write_bytes(tar[: len(tar) // 2])
    (tmp_path / "text").write_text("no copy")
    for name in ("copy", "bent.tar"):
        with pytest.raises(BackupDamaged):
            backups(tmp_path / "data").restore(tmp_path / name, force=True)
    for name in ("cut.tar", "text", "nowhere"):
        with pytest.raises((InvalidRequest, BackupDamaged)):
            backups(tmp_path / "data").restore(tmp_path / name, force=True)
    assert (await house.jobs.show(OWNER, job_id)).job.status is JobStatus.QUEUED
    blob.unlink()
    with pytest.raises(BackupDamaged, match="not in the copy"):
        backups(tmp_path / "data").restore(tmp_path / "copy", force=True)


async def test_a_manifest_names_no_place_outside(open_house: Open, tmp_path: Path) -> None:
    await submit(await open_house(tmp_path / "data"))
    backups(tmp_path / "data").make(tmp_path / "copy")
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_text())
    manifest["files"]["blobs/../../evil"] = manifest["files"]["voiceforge.db"]
    (tmp_path / "copy" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidRequest):
        backups(tmp_path / "other").restore(tmp_path / "copy")
    assert not (tmp_path / "other").exists() or not any((tmp_path / "other").iterdir())


async def test_a_damaged_recording_is_found_when_it_is_copied(open_house: Open, tmp_path: Path) -> None:
    await submit(await open_house(tmp_path / "data"))
    (blob,) = (path for path in (tmp_path / "data" / "blobs" / "audio").rglob("*") if path.is_file())
    blob.write_bytes(b"rotten")
    with pytest.raises(BackupFailed, match="damaged"):
        backups(tmp_path / "data").make(tmp_path / "copy.tar")
    assert not (tmp_path / "copy.tar").exists()


def test_a_folder_without_jobs(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="nothing to copy"):
        backups(tmp_path / "data").make(tmp_path / "copy")


async def test_the_tar_is_one_that_others_read(open_house: Open, tmp_path: Path) -> None:
    await submit(await open_house(tmp_path / "data"))
    backups(tmp_path / "data").make(tmp_path / "copy.tar")
    with tarfile.open(tmp_path / "copy.tar") as tar:
        names = tar.getnames()
    assert names[-2:] == ["voiceforge.db", "manifest.json"]
    assert all(name.startswith("blobs/audio/rec_") for name in names[:-2])
