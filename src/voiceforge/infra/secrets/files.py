"""A secret in a file of its own, and a folder of them, as container platforms mount it."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from voiceforge.infra.secrets.base import SecretsUnreadable

_MOST_BYTES = 64 * 1024


def read_secret(path: Path) -> str:
    """What the file holds, without the line end that editors put there. Pipes are read too. Blocks.

    Raises:
        SecretsUnreadable: it is missing, empty, no text, too large, or anybody could have written it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise SecretsUnreadable(f"{path} cannot be read: {error.strerror}") from None
    if stat.S_ISREG(mode) and mode & stat.S_IWOTH:
        raise SecretsUnreadable(f"{path} can be written by everybody: chmod o-w it")
    if len(content) > _MOST_BYTES:
        raise SecretsUnreadable(f"{path} is larger than {_MOST_BYTES:,} bytes, which no secret is")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise SecretsUnreadable(f"{path} is not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise SecretsUnreadable(f"{path} is empty")
    return text


def is_open_to_all(path: Path) -> bool:
    """Whether every user of the machine can read it."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)


class SecretFolder:
    """Files that are called as environment variables are, in letters of any case; others are left alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, names: Collection[str]) -> Mapping[str, str]:
        wanted = frozenset(names)
        try:
            found = sorted(path for path in self._folder.iterdir() if path.name.upper() in wanted)
        except OSError as error:
            raise SecretsUnreadable(f"{self._folder} cannot be read: {error.strerror}") from None
        return {path.name.upper(): read_secret(path) for path in found}
