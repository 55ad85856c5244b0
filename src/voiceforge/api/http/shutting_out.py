"""Sockets of somebody who is shut out while they are open: they are closed, in every process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voiceforge.errors import Unauthenticated

_POLICY_VIOLATION = 1008  # RFC 6455


async def until_shut_out(
    app: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Send,
    shut_out: Callable[[], Awaitable[Unauthenticated]],
) -> None:
    """Have `app` talk over a socket, for as long as `shut_out` does not return why that is over."""
    watching: asyncio.Task[None] | None = None
    is_over = False

    async def watch() -> None:
        nonlocal is_over
        why = await shut_out()
        is_over = True
        # The app learns of it as it would of a client who leaves.
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": why.code})

    async def send_meanwhile(message: Message) -> None:
        nonlocal watching
        if is_over:
            raise OSError("the socket was closed")
        await send(message)
        if message["type"] == "websocket.accept":
            watching = asyncio.create_task(watch())

    try:
        await app(scope, receive, send_meanwhile)
    finally:
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
