"""The documented commands for PostgreSQL and an object store, with the real servers."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from voiceforge.infra.blobs.object_store import ObjectStoreBlobs
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.migrate import Migrations
from voiceforge.infra.db.records import JobStatus
from voiceforge.services.access import OWNER
from voiceforge.services.job_intake import JobRequest
from voiceforge.services.samples import sample_recordings
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.job_house import job_house
from voiceforge.testing.postgres_server import PostgresServer
from voiceforge.testing.s3_server import (
    ACCESS_KEY_ID,
    BUCKET,
    SECRET_ACCESS_KEY,
    S3Server,
    find_rclone,
    s3_server,
)

BECKETT, DICKENS = sample_recordings()
PAGE = Path(__file__).resolve().parents[2] / "docs" / "backup.md"


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[S3Server, S3Server]]:
    if find_rclone() is None:
        pytest.skip("there is no rclone here")
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with s3_server(tmp_path / "one") as one, s3_server(tmp_path / "two") as two:
        yield one, two


def documented(number: int) -> list[str]:
    """The commands of one of the page's shell blocks, but ours."""
    block = re.findall(r"(?ms)^```sh\n(.*?)^```", PAGE.read_text())[number]
    return [line for line in block.splitlines() if not line.startswith("voiceforge ")]


def run(commands: list[str], folder: Path, programs: Path, database_url: str, store: S3Server) -> None:
    rclone = find_rclone()
    assert rclone is not None
    tools = (str(programs), str(rclone.parent))
    environment = {
        "PATH": os.pathsep.join([*tools, os.environ["PATH"]]),
        "HOME": str(folder),
        "DATABASE_URL": database_url,
        "RCLONE_CONFIG": str(folder / "rclone.conf"),
        "RCLONE_CONFIG_STORE_TYPE": "s3",
        "RCLONE_CONFIG_STORE_PROVIDER": "Rclone",
        "RCLONE_CONFIG_STORE_ENDPOINT": store.endpoint,
        "RCLONE_CONFIG_STORE_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "RCLONE_CONFIG_STORE_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
    }
    for command in commands:
        command = command.replace("store:bucket/prefix", f"store:{BUCKET}/jobs").replace(
            "/backups/", f"{folder}/"
        )
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (command, done.stderr)


async def test_the_documented_commands_bring_everything_back(
    postgres: PostgresServer, stores: tuple[S3Server, S3Server], tmp_path: Path
) -> None:
    vad, url, other_url = SileroModel(), postgres.new_database(), postgres.new_database()
    database, blobs = Database(url), ObjectStoreBlobs(stores[0].access("jobs"))
    await Migrations(database).upgrade()
    async with job_house(database, blobs, tmp_path, vad=vad) as house:
        done = (await house.jobs.submit(JobRequest(BECKETT, TranscribeOptions()))).job.id
        assert await house.runner.run(done)
        waiting = (await house.jobs.submit(JobRequest(DICKENS, TranscribeOptions()))).job.id
        run(documented(0), tmp_path, postgres.programs, url, stores[0])
        text = (await house.jobs.transcript(OWNER, done)).text
        await house.jobs.erase(OWNER, done)
    await database.close()
    await blobs.close()

    run(documented(1), tmp_path, postgres.programs, other_url, stores[1])
    database, blobs = Database(other_url), ObjectStoreBlobs(stores[1].access("jobs"))
    migrations = Migrations(database)
    assert await migrations.is_current()
    assert await migrations.drift() == []
    async with job_house(database, blobs, tmp_path, vad=vad) as house:
        assert (await house.jobs.transcript(OWNER, done)).text == text
        assert await house.runner.run(waiting)
        assert (await house.jobs.show(OWNER, waiting)).job.status is JobStatus.COMPLETED
        assert len(await house.jobs.search(OWNER, "w1")) == 2
    await database.close()
    await blobs.close()
