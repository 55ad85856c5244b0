"""Wires what finds out who calls."""

from __future__ import annotations

from voiceforge.errors import VoiceForgeError
from voiceforge.infra.db.database import Database
from voiceforge.main.server_secret import ServerSecret, server_secret
from voiceforge.main.settings import Settings
from voiceforge.services.authentication import AccessTokens, Authentication, OnRefused
from voiceforge.services.key_holders import KeyHolders
from voiceforge.services.keys import Keys
from voiceforge.services.models import Models
from voiceforge.services.short_tokens import ShortTokens
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)


def build_authentication(
    settings: Settings,
    database: Database,
    access_tokens: AccessTokens | None = None,
    on_refused: OnRefused = lambda address, code: None,
) -> Authentication:
    """
    Args:
        access_tokens: of people who logged in.
        on_refused: told the address and the code of who was not let in.

    Raises:
        ConfigurationError: there is no place for the server's secret.
    """
    secret = server_secret(settings)
    configured = None if settings.api_key is None else settings.api_key.get_secret_value()
    return Authentication(
        configured,
        required=settings.auth.required,
        holders=KeyHolders(database, keys_secret(secret)),
        access_tokens=access_tokens,
        short_tokens=ShortTokens(secret.derived("short tokens"), configured),
        failures_per_minute=settings.auth.failures_per_minute,
        on_refused=on_refused,
    )


def build_keys(settings: Settings, database: Database, models: Models) -> Keys:
    """
    Raises:
        ConfigurationError: there is no place for the server's secret.
    """
    return Keys(database, keys_secret(server_secret(settings)), model_id=lambda name: models.get(name).id)


def keys_secret(secret: ServerSecret) -> bytes:
    """Under which API keys are hashed."""
    return secret.derived("api keys")


async def add_first_key(settings: Settings, keys: Keys) -> None:
    """The one that `auth.first_key` wants to be known, where it is not. A database that is away just now is
    no reason to end: the next start tries again.
    """
    wished = settings.auth.first_key
    if wished is None:
        return
    try:
        made = await keys.first_owner(wished.get_secret_value())
    except VoiceForgeError as error:
        _log.error("auth.first_key was not added", problem=error.message)
        return
    if made is not None:
        _log.info("auth.first_key was added", key_id=made.key.id)
