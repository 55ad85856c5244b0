"""Stops work nobody waits for: when the client goes away, what runs for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

T = TypeVar("T")


async def until_gone(receive: Receive) -> None:
    """Returns when the client has disconnected; what is left of the body is thrown away."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end, or cancel it as soon as the client goes.

    Raises:
        ClientDisconnect: it went; `work` has been cancelled and has finished cleaning up.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(until_gone(request.receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        watching.cancel()
        working.cancel()
        await asyncio.wait({working, watching})
        if not working.cancelled():
            working.exception()  # seen, so that asyncio does not complain about it later
