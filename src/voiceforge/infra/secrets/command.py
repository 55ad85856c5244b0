"""A program that knows secrets: the client of a secret manager, or what decrypts a file."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Mapping, Sequence

from voiceforge.infra.secrets.base import SecretsUnreadable

_MOST_BYTES = 1024 * 1024


class SecretCommand:
    """Prints one JSON object: names of environment variables, in letters of any case, and their values.

    Names that nobody asked for are left alone. What it says on standard error goes to ours.
    """

    def __init__(self, command: Sequence[str], *, timeout_s: float) -> None:
        self._command = tuple(command)
        self._timeout_s = timeout_s

    def read(self, names: Collection[str]) -> Mapping[str, str]:
        program = self._command[0]
        try:
            ended = subprocess.run(  # noqa: S603  # whoever writes the settings chooses it
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                timeout=self._timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise SecretsUnreadable(f"{program} took longer than {self._timeout_s:g} s") from None
        except OSError as error:
            raise SecretsUnreadable(f"{program} cannot be started: {error.strerror}") from None
        if ended.returncode:
            raise SecretsUnreadable(f"{program} ended with {ended.returncode}")
        try:
            told = json.loads(ended.stdout[: _MOST_BYTES + 1])
        except (ValueError, RecursionError):
            told = None
        if not isinstance(told, dict):
            raise SecretsUnreadable(f"{program} did not print a JSON object")
        wanted = frozenset(names)
        values = {str(name).upper(): value for name, value in told.items() if str(name).upper() in wanted}
        for name, value in values.items():
            if not isinstance(value, str) or not value:
                raise SecretsUnreadable(f"{program}: {name} should be text that is not empty")
        return values
