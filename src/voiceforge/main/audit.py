"""Wires the audit log, and says there what the server was started with."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr
from pydantic_core import to_json

from voiceforge.errors import VoiceForgeError
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.migrate import Migrations
from voiceforge.main.database import open_database
from voiceforge.main.server_secret import server_secret
from voiceforge.main.settings import Settings, setting_fields
from voiceforge.services.access import trusted
from voiceforge.services.audit import Audit
from voiceforge.services.backup import Copied
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)

_SAME_START_S = 60.0
"""Within it, processes with the same settings are of the same server."""


def build_audit(settings: Settings, database: Database) -> Audit:
    return Audit(database, keep_s=settings.retention.audit_s)


async def note_start(settings: Settings, audit: Audit) -> None:
    """Which settings differ from the defaults, and a hash of all of them: under the server's secret, since
    it is over secrets too. Of several processes one notes it.

    Raises:
        Unavailable, ConfigurationError
    """
    key = server_secret(settings).derived("audit of settings")
    values = {".".join(path): _value(settings, path) for path, _ in setting_fields()}
    usual = Settings()
    defaults = {".".join(path): _value(usual, path) for path, _ in setting_fields()}
    await audit.note_once(
        "server.started",
        within_s=_SAME_START_S,
        settings=sorted(name for name, value in values.items() if value != defaults[name]),
        hash=hmac.digest(key, to_json(values), hashlib.sha256).hex(),
    )


async def note_tiers(audit: Audit, names: tuple[str, ...]) -> None:
    """Where the database is away, the log of the server has it."""
    try:
        await audit.note_once("tiers.changed", within_s=_SAME_START_S, tiers=names)
    except VoiceForgeError as error:
        _log.warning("tiers not noted in the audit log", problem=error.message)


async def note_backup(settings: Settings, action: str, copied: Copied) -> None:
    """Where the database is of an older program, or away, the log of the server has it."""
    database = open_database(settings)
    try:
        if await Migrations(database).is_current():
            audit = build_audit(settings, database)
            await audit.note(trusted(), action, recordings=copied.recordings, size_bytes=copied.size_bytes)
        else:
            _log.warning("not noted in the audit log: the database is of an older program", action=action)
    except VoiceForgeError as error:
        _log.warning("not noted in the audit log", action=action, problem=error.message)
    finally:
        await database.close()


def _value(settings: Settings, path: tuple[str, ...]) -> Any:
    value: Any = settings
    for name in path:
        value = getattr(value, name)
    return _plain(value)


def _plain(value: Any) -> Any:
    """With secrets told."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if hasattr(value, "model_dump"):
        return {name: _plain(one) for name, one in value.model_dump().items()}
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    return value
