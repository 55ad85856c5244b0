"""The seam to whatever brings letters to people."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


class LetterKind(StrEnum):
    VERIFY = "verify"
    """Somebody wants to register with this address; the token confirms it."""
    ALREADY_REGISTERED = "already_registered"
    """Likewise, but it has an account; the token sets a new password, in case that is what they need."""
    RESET = "reset"
    """Somebody has forgotten the password; the token sets a new one."""
    INVITE = "invite"
    """They are asked to join; the token lets them."""


@dataclass(frozen=True, slots=True)
class Letter:
    """expires_at: Unix seconds; the token is good for nothing then. tenant_name: who invites."""

    kind: LetterKind
    to: str
    token: str = field(repr=False)
    expires_at: float
    tenant_name: str | None = None

    def document(self) -> dict[str, Any]:
        return {
            "kind": self.kind.value,
            "to": self.to,
            "token": self.token,
            "expires_at": int(self.expires_at),
            "tenant_name": self.tenant_name,
        }


class Letters(Protocol):
    async def send(self, letter: Letter) -> None:
        """
        Raises:
            UpstreamFailed, DeadlineExceeded: it may not have gone out.
        """
        ...
