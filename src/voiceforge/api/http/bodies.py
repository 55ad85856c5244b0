"""Request bodies on their way in: how much came, how much and how long it may be.

Small unless the route says otherwise: a route that forgets to set a limit has this one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from voiceforge.errors import InvalidRequest, UploadTooLarge

_KEY = "voiceforge.body"


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """
    most_bytes: of a body that is no upload.
    patience_s: so long may such a body take as a whole, and an upload bring nothing.
    """

    most_bytes: int = 1024 * 1024
    patience_s: float = 60.0


class Body:
    """Stands in the scope while its request runs."""

    def __init__(self, scope: Scope, receive: Receive, limits: BodyLimits) -> None:
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        self.declared = int(length) if length.isdecimal() else None
        self._awaits_go_ahead = headers.get("expect", "").lower() == "100-continue"
        self._from_client = receive
        self._limits = limits
        self._bounded = True
        self._patient = False
        self._give_up_at: float | None = None
        self.received = 0
        chunked = "transfer-encoding" in headers
        self.complete = not chunked and not self.declared
        scope[_KEY] = self

    async def receive(self) -> Message:
        """
        Raises:
            UploadTooLarge: there is more than the route takes.
            InvalidRequest: it takes too long.
        """
        if self.complete or (self._patient and not self._bounded):
            return await self._take()
        if self._bounded:
            self._check(self.declared or 0)
        message = await self._take_in_time()
        if self._bounded:
            self._check(self.received)
        return message

    def as_upload(self, *, watched: bool) -> None:
        """Whoever reads it bounds it.

        Args:
            watched: he also gives up a client that brings nothing; else that is done here.
        """
        self._bounded = False
        self._patient = watched

    def _check(self, size_bytes: int) -> None:
        if size_bytes > self._limits.most_bytes:
            raise UploadTooLarge(f"the body is larger than {self._limits.most_bytes:,} bytes")

    async def _take_in_time(self) -> Message:
        now = asyncio.get_running_loop().time()
        patience_s = self._limits.patience_s
        if self._give_up_at is None or not self._bounded:
            self._give_up_at = now + patience_s
        try:
            async with asyncio.timeout_at(self._give_up_at):
                return await self._take()
        except TimeoutError:
            what = "took longer than" if self._bounded else "brought nothing for"
            raise InvalidRequest(f"the body {what} {patience_s:g} s") from None

    async def _take(self) -> Message:
        self._awaits_go_ahead = False
        message = await self._from_client()
        if message["type"] == "http.disconnect":
            self.complete = True
        elif message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        return message

    async def discard(self, most_bytes: int, most_s: float) -> None:
        """Read and forget until the body ends, the client goes, or a limit is reached."""
        if self._awaits_go_ahead:
            return  # asking for the body would invite the client to send it
        stop_at = self.received + most_bytes
        try:
            async with asyncio.timeout(most_s):
                while not self.complete and self.received < stop_at:
                    await self._take()
        except TimeoutError:
            return


def read_as_upload(scope: Scope, *, watched: bool) -> None:
    """See `Body.as_upload`; nothing where nobody bounds bodies."""
    body = scope.get(_KEY)
    if body is not None:
        body.as_upload(watched=watched)
