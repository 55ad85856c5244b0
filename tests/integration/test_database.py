"""A database that opens late, or has no room left: who comes waits or is told; nothing is half written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from voiceforge.errors import StorageFull, Unavailable
from voiceforge.infra.db import transcriptions
from voiceforge.infra.db.database import Database, PoolSizes
from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.migrate import Migrations
from voiceforge.infra.db.records import NewJob, Rank


async def test_who_comes_while_it_opens_waits_for_it(database: Database) -> None:
    database.refuse("not yet", soon=True)
    asked = asyncio.create_task(database.check())
    await asyncio.sleep(0)
    database.refuse(None)
    await asyncio.wait_for(asked, 10)


async def test_who_waited_too_long_is_told_when_to_come_again(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/jobs.db", PoolSizes(1, wait_s=0.05))
    database.refuse("not yet", soon=True)
    with pytest.raises(Unavailable, match="not yet") as told:
        await database.check()
    assert told.value.retry_after_s
    await database.close()


async def test_a_full_disk_is_told_and_leaves_everything_whole(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/jobs.db", PoolSizes(connections=1))
    await Migrations(database).upgrade()

    def job(size: int) -> NewJob:
        return NewJob(new_id("tr", 1.0), "default", Rank.NORMAL, "m", {}, {"note": "x" * size}, 1.0)

    async with database.transaction() as connection:
        await transcriptions.add(connection, job(10))
        pages = (await connection.execute(text("PRAGMA page_count"))).scalar_one()
        await connection.execute(text(f"PRAGMA max_page_count = {pages + 4}"))

    async def add_too_much() -> None:
        async with database.transaction() as connection:
            await transcriptions.add(connection, job(10))
            await transcriptions.add(connection, job(1_000_000))

    with pytest.raises(StorageFull):
        await add_too_much()
    async with database.transaction() as connection:
        await connection.execute(text(f"PRAGMA max_page_count = {pages + 4000}"))
        await transcriptions.add(connection, job(1_000_000))
        count = (await connection.execute(text("SELECT count(*) FROM transcriptions"))).scalar_one()
        assert count == 2
        assert (await connection.execute(text("PRAGMA integrity_check"))).scalar_one() == "ok"
    await database.close()


async def test_nobody_else_on_the_machine_can_read_it(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/jobs.db", PoolSizes(connections=1))
    await Migrations(database).upgrade()
    rights = await asyncio.to_thread(lambda: {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()})
    assert rights == {0}
    await database.close()
