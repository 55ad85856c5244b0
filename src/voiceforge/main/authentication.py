"""Wires what finds out who calls."""

from __future__ import annotations

from voiceforge.infra.db.database import Database
from voiceforge.main.server_secret import ServerSecret, server_secret
from voiceforge.main.settings import Settings
from voiceforge.services.authentication import AccessTokens, Authentication
from voiceforge.services.key_holders import KeyHolders
from voiceforge.services.short_tokens import ShortTokens


def build_authentication(
    settings: Settings, database: Database, access_tokens: AccessTokens | None = None
) -> Authentication:
    """
    Args:
        access_tokens: of people who logged in.

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
    )


def keys_secret(secret: ServerSecret) -> bytes:
    """Under which API keys are hashed."""
    return secret.derived("api keys")
