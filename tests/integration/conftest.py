"""Real servers, one of each for all tests that need it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from voiceforge.infra.db.database import Database
from voiceforge.infra.db.migrate import Migrations
from voiceforge.testing.postgres_server import PostgresServer, has_postgres, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    if not has_postgres():
        pytest.skip("there is no PostgreSQL server here")
    with postgres_server() as server:
        yield server


def _upgraded(url: str) -> str:
    async def upgrade() -> None:
        database = Database(url)
        await Migrations(database).upgrade()
        await database.close()

    asyncio.run(upgrade())
    return url


@pytest.fixture(scope="session")
def new_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """A database with our tables in that folder: a copy, sooner made than by migrations."""
    template = tmp_path_factory.mktemp("template") / "jobs.db"
    _upgraded(f"sqlite:///{template}")

    def new(folder: Path) -> str:
        shutil.copyfile(template, folder / "jobs.db")
        return f"sqlite:///{folder}/jobs.db"

    return new


@pytest.fixture(scope="session")
def new_postgres(postgres: PostgresServer) -> Callable[[], str]:
    """A database with our tables, likewise."""
    template = _upgraded(postgres.new_database())
    return lambda: postgres.new_database(like=template)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a database of each kind, with our tables."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("new_sqlite")(tmp_path))
    return str(request.getfixturevalue("new_postgres")())


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url)
    yield opened
    await opened.close()
