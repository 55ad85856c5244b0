"""Ends a connection decently when the reply is ready before the request has fully arrived.

Reading on would let anyone make us swallow gigabytes; just closing would reset the connection and take the
reply with it. So the reply goes out in full with `Connection: close`, and what is still coming is thrown
away for a short while, as nginx's lingering close does.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A rest this small is read at once, so that the connection can be kept.
_SMALL_REST_BYTES = 1024 * 1024
_SMALL_REST_S = 1.0
_LINGER_BYTES = 16 * 1024 * 1024
_LINGER_S = 2.0


class EarlyReply:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(Headers(scope=scope), receive)
        closing = False

        async def send_then_linger(message: Message) -> None:
            nonlocal closing
            if message["type"] == "http.response.start" and not body.complete:
                if body.rest_is_small:
                    await body.discard(_SMALL_REST_BYTES, _SMALL_REST_S)
                closing = not body.complete
                if closing:
                    MutableHeaders(scope=message)["Connection"] = "close"
            if closing and message["type"] == "http.response.body" and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await body.discard(_LINGER_BYTES, _LINGER_S)
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self._app(scope, body.receive, send_then_linger)


class _Body:
    """The request body on its way in: how much came, and whether it is all here."""

    def __init__(self, headers: Headers, receive: Receive) -> None:
        length = headers.get("content-length", "")
        self._declared = int(length) if length.isdecimal() else None
        self._awaits_go_ahead = headers.get("expect", "").lower() == "100-continue"
        self._receive = receive
        self._received = 0
        chunked = "transfer-encoding" in headers
        self.complete = not chunked and not self._declared

    @property
    def rest_is_small(self) -> bool:
        declared = self._declared
        return declared is not None and declared - self._received <= _SMALL_REST_BYTES

    async def receive(self) -> Message:
        self._awaits_go_ahead = False
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.complete = True
        elif message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        return message

    async def discard(self, most_bytes: int, most_s: float) -> None:
        """Read and forget until the body ends, the client goes, or a limit is reached."""
        if self._awaits_go_ahead:
            return  # asking for the body would invite the client to send it
        stop_at = self._received + most_bytes
        try:
            async with asyncio.timeout(most_s):
                while not self.complete and self._received < stop_at:
                    await self.receive()
        except TimeoutError:
            return
