"""The seam to receivers of events: a message goes out, what the receiver says comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Receipt:
    """status: of HTTP. retry_after_s: what the receiver asks for, if it does."""

    status: int
    retry_after_s: float | None = None


class WebhookSender(Protocol):
    async def check(self, url: str) -> None:
        """A name that has no address now is let pass: it may have one when something is sent.

        Raises:
            UrlRefused: it is no URL that we send to, or it leads where we don't go.
        """
        ...

    async def send(
        self, url: str, headers: Mapping[str, str], body: bytes, *, method: str = "POST"
    ) -> Receipt:
        """Send once; redirects are not followed, and the content of the answer is not looked at.

        Raises:
            UrlRefused: likewise, as its name stands now.
            UpstreamFailed: it could not be reached, or broke off.
            DeadlineExceeded: it did not answer in time.
        """
        ...
