"""Bringing a database to the state that this program knows, and back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Connection, inspect

from voiceforge.errors import InvalidRequest, VoiceForgeError
from voiceforge.infra.db.migrations import HEAD

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.ext.asyncio import AsyncConnection

    from voiceforge.infra.db.database import Database

T = TypeVar("T")


class SchemaUnknown(VoiceForgeError):
    """A newer program has been here."""

    code = "database_newer"


class Migrations:
    """Of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def upgrade(self, to: str = "head") -> str:
        """Returns the revision it has then; nothing happens where it has it already.

        Raises:
            Unavailable, SchemaUnknown
            InvalidRequest: there is no such revision.
        """
        from alembic import command

        async with self._database.transaction() as connection:
            await connection.run_sync(_locked)
            await self._refuse_newer(connection)
            await connection.run_sync(self._run(lambda config: command.upgrade(config, to)))
            return await connection.run_sync(self._revision) or ""

    async def downgrade(self, to: str) -> str:
        """to: a revision, `-1` or `base`. Data that only the newer state has is lost.

        Raises:
            Unavailable, SchemaUnknown
            InvalidRequest: there is no such revision.
        """
        from alembic import command

        async with self._database.transaction() as connection:
            await connection.run_sync(_locked)
            await self._refuse_newer(connection)
            await connection.run_sync(self._run(lambda config: command.downgrade(config, to)))
            return await connection.run_sync(self._revision) or ""

    async def current(self) -> str | None:
        """The revision it has; None: it is empty."""
        async with self._database.reading() as connection:
            return await connection.run_sync(self._revision)

    async def is_current(self) -> bool:
        """Whether it is what this program needs; quick."""
        async with self._database.reading() as connection:
            return await connection.run_sync(_revision_row) == HEAD

    def head(self) -> str:
        """The revision this program needs."""
        return self._known()[0]

    async def drift(self) -> list[str]:
        """How its tables differ from those this program knows; nothing, where it has the newest revision."""
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        from voiceforge.infra.db.migrations.scope import ours
        from voiceforge.infra.db.tables_access import users

        def compare(connection: Connection) -> list[str]:
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "include_name": ours}
            )
            return [str(difference) for difference in compare_metadata(context, users.metadata)]

        async with self._database.reading() as connection:
            return await connection.run_sync(compare)

    async def _refuse_newer(self, connection: AsyncConnection) -> None:
        if await connection.run_sync(self._revision) not in (None, *self._known()):
            raise SchemaUnknown("a newer VoiceForge has used this database; use that one")

    def _known(self) -> list[str]:
        """The newest first."""
        from alembic.script import ScriptDirectory

        return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()]

    @staticmethod
    def _revision(connection: Connection) -> str | None:
        from alembic.migration import MigrationContext

        return MigrationContext.configure(connection).get_current_revision()

    @staticmethod
    def _run(command: Callable[[Config], None]) -> Callable[[Connection], None]:
        from alembic.util import CommandError

        def run(connection: Connection) -> None:
            config = _config()
            config.attributes["connection"] = connection
            try:
                command(config)
            except CommandError as error:  # all that our callers can bring about
                raise InvalidRequest("there is no such revision to go to", field="to") from error

        return run


def _revision_row(connection: Connection) -> str | None:
    """As Alembic notes it, without loading that."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def _config() -> Config:
    from alembic.config import Config

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    return config


def _locked(connection: Connection) -> None:
    """Several processes may start at once; SQLite's transaction keeps the others out by itself."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(0x766f6963)")
