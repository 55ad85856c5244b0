"""The seam: whoever keeps secrets is asked once, for all that are wanted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol


class SecretsUnreadable(Exception):
    """They cannot be had. The text is for whoever set it up: it may name paths and programs, no secret."""


class SecretSource(Protocol):
    def read(self, names: Collection[str]) -> Mapping[str, str]:
        """Those of `names` that are kept there, without the line end they may have. Blocks.

        Args:
            names: of environment variables, such as `VOICEFORGE_API_KEY`.

        Raises:
            SecretsUnreadable
        """
        ...
