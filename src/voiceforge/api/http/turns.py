"""Shares the event loop's turns: however many uploads arrive at once, each turn takes in a few pieces.

What has not had its turn is not read from its socket, and so its client is held back. Requests that bring no
body pass, and are answered between two turns.
"""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PER_TURN = 2
"""Each takes 0.2 to 1.5 ms: a piece of an upload, or a request's way to its first one."""
_FEW = 8
"""So many at once may take their turns as they come: asking for one costs a quarter of what an earlier result
does."""
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


class Turns:
    """Belongs to one event loop. First come, first served.

    Args:
        per_turn: how many may go on in one turn of the loop.
    """

    def __init__(self, per_turn: int = _PER_TURN) -> None:
        self._per_turn = per_turn
        self._left = per_turn
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._counting = False

    async def mine(self) -> None:
        """Returns when this turn of the loop, or a later one, has room."""
        loop = asyncio.get_running_loop()
        if not self._counting:
            self._counting = True
            loop.call_soon(self._next_turn)
        if self._left and not self._waiting:
            self._left -= 1
            return
        granted = loop.create_future()
        self._waiting.append(granted)
        await granted

    def _next_turn(self) -> None:
        self._left = self._per_turn
        while self._left and self._waiting:
            granted = self._waiting.popleft()
            if not granted.done():  # else its request is over
                granted.set_result(None)
                self._left -= 1
        self._counting = self._left < self._per_turn
        if self._counting:
            asyncio.get_running_loop().call_soon(self._next_turn)


class TakeTurns:
    """Requests with a body begin, and go on, when it is their turn.

    Args:
        few: so many at once need not wait for it.
    """

    def __init__(self, app: ASGIApp, turns: Turns, *, few: int = _FEW) -> None:
        self._app = app
        self._turns = turns
        self._few = few
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _BODILESS:
            await self._app(scope, receive, send)
            return
        self._inside += 1
        try:
            if self._inside > self._few:
                await self._in_turn(scope, receive, send)
            else:
                await self._app(scope, receive, send)
        finally:
            self._inside -= 1

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_in_turn() -> Message:
            message = await receive()
            if message.get("body"):
                await self._turns.mine()
            return message

        await self._turns.mine()
        await self._app(scope, receive_in_turn, send)
