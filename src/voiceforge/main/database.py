"""The database of the settings. Imports nothing of what works on jobs: `voiceforge db` needs it alone."""

from __future__ import annotations

from voiceforge.infra.db.database import Database, PoolSizes
from voiceforge.main.settings import Settings


def open_database(settings: Settings) -> Database:
    """
    Raises:
        InvalidRequest, DependencyMissing
    """
    wish = settings.database
    return Database(database_address(settings), PoolSizes(wish.pool_size, wish.wait_s))


def database_address(settings: Settings) -> str:
    """With its password, if it has one."""
    wish = settings.database.url
    if wish is not None:
        return wish.get_secret_value()
    return f"sqlite:///{settings.data_dir.absolute() / 'voiceforge.db'}"
