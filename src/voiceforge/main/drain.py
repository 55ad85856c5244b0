"""Stands before the app: counts requests in progress, and once closed lets no new ones in.

Health checks always pass, so that a balancer sees the server leaving.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voiceforge.api.http.asgi import STARTED
from voiceforge.api.http.early_reply import EarlyReply
from voiceforge.api.http.errors import ErrorReplies
from voiceforge.api.http.request_id import RequestIds
from voiceforge.api.http.response_headers import ResponseHeaders
from voiceforge.errors import ShuttingDown

_RETRY_AFTER_S = 5.0


class DrainGate:
    """Belongs to one event loop."""

    def __init__(self, app: ASGIApp, replies: ErrorReplies) -> None:
        self._app = app
        self._replies = replies
        self._late = RequestIds(ResponseHeaders(EarlyReply(self._refuse)))
        self._cut_off = RequestIds(ResponseHeaders(self._refuse))
        self._requests: set[asyncio.Task[object]] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._closed = False
        self._cutting = False

    @property
    def in_progress(self) -> int:
        return len(self._requests)

    def close(self) -> int:
        """Refuse what comes from now on; returns how many requests are in progress."""
        self._closed = True
        return self.in_progress

    async def wait_empty(self, timeout_s: float) -> bool:
        """Whether all requests in progress ended in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    def cancel_all(self) -> None:
        """Stop what is in progress; who has had no reply yet is told why."""
        self._cutting = True
        for request in self._requests:
            request.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or _is_health(scope["path"]):
            await self._app(scope, receive, send)
            return
        if self._closed:
            await self._late(scope, receive, send)
            return
        request = asyncio.current_task()
        assert request is not None
        self._requests.add(request)
        self._empty.clear()
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] in STARTED
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except asyncio.CancelledError:
            if not self._cutting:
                raise
            request.uncancel()
            if not started:
                await self._cut_off(scope, receive, send)
        finally:
            self._requests.discard(request)
            if not self._requests:
                self._empty.set()

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = ShuttingDown("the server is shutting down", retry_after_s=_RETRY_AFTER_S)
        reply = self._replies.reply(scope, error, headers={"Connection": "close"})
        await reply(scope, receive, send)


def _is_health(path: str) -> bool:
    return path == "/health" or path.startswith("/health/")
