"""Every step up and down, on both databases; afterwards the tables are those of the program."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import inspect, text

from voiceforge.infra.db.database import Database
from voiceforge.infra.db.migrate import Migrations, SchemaUnknown
from voiceforge.infra.db.migrations import HEAD


@pytest.fixture
def migrations(empty_database_url: str) -> Migrations:
    return Migrations(Database(empty_database_url))


async def tables(empty_database_url: str) -> set[str]:
    database = Database(empty_database_url)
    async with database.reading() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
    await database.close()
    return set(names)


async def test_up_down_and_up_again(migrations: Migrations, empty_database_url: str) -> None:
    assert await migrations.current() is None
    assert not await migrations.is_current()
    assert await migrations.upgrade() == HEAD
    assert await migrations.is_current()
    assert await migrations.drift() == []
    assert await migrations.downgrade("base") == ""
    assert await tables(empty_database_url) <= {"alembic_version"}
    assert await migrations.upgrade() == HEAD
    assert await migrations.drift() == []


async def test_the_newest_step_is_the_one_we_say(migrations: Migrations) -> None:
    assert migrations.head() == HEAD


async def test_tells_how_tables_differ(migrations: Migrations, empty_database_url: str) -> None:
    await migrations.upgrade()
    database = Database(empty_database_url)
    async with database.transaction() as connection:
        await connection.execute(text("ALTER TABLE chores ADD COLUMN odd TEXT"))
        await connection.execute(text("DROP INDEX ix_transcriptions_waiting"))
    drift = " ".join(await migrations.drift())
    assert "odd" in drift
    assert "ix_transcriptions_waiting" in drift
    await database.close()


async def test_many_processes_may_upgrade_at_once(empty_database_url: str) -> None:
    several = [Migrations(Database(empty_database_url)) for _ in range(5)]
    assert await asyncio.gather(*(migrations.upgrade() for migrations in several)) == [HEAD] * 5


async def test_leaves_the_database_of_a_newer_program_alone(
    migrations: Migrations, empty_database_url: str
) -> None:
    await migrations.upgrade()
    database = Database(empty_database_url)
    async with database.transaction() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaUnknown):
        await migrations.upgrade()
    assert await migrations.current() == "9999"
    await database.close()
