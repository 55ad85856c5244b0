"""The secret of an installation: what its keys are hashed and its tokens are sealed with."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from voiceforge.errors import ConfigurationError
from voiceforge.main.settings import Settings

_FILE = "auth.secret"
_BYTES = 32


class ServerSecret:
    """Args:
    value: of any length; nothing is done with it but deriving others.
    """

    def __init__(self, value: bytes) -> None:
        self._value = value

    def derived(self, purpose: str) -> bytes:
        """32 bytes that are always the same for a purpose, and tell nothing of those for others."""
        return hmac.digest(self._value, f"voiceforge {purpose}".encode(), hashlib.sha256)


def server_secret(settings: Settings) -> ServerSecret:
    """The configured one, or that of the data folder, which is made where there is none.

    Raises:
        ConfigurationError: the folder lets nobody keep it there.
    """
    wished = settings.auth.secret
    if wished is not None:
        return ServerSecret(wished.get_secret_value().encode())
    path = settings.data_dir / _FILE
    try:
        return ServerSecret(_kept(path))
    except OSError as error:
        raise ConfigurationError(
            ["data_dir: the secret of the server cannot be kept there; set auth.secret"]
        ) from error


def _kept(path: Path) -> bytes:
    """What the file holds; where several processes make it at once, one of them wins."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        own = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(_BYTES).encode())
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(own)
        except FileExistsError:
            pass
        finally:
            own.unlink()
    return path.read_bytes()
