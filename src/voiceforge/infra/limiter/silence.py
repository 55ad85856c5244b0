"""Gives up on a server that says nothing, and only on that: not while it answers others, and not because this
process had no time to read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_LATE_S = 0.02
"""A timer that rings later than this does not say that the server was silent, but that nobody listened."""


class Silence:
    """Belongs to one event loop.

    Args:
        longest_s: nothing for so long, and whoever waits is told.
        first_s: likewise, until it was heard of for the first time: names are looked up and connections made.
    """

    def __init__(self, longest_s: float, first_s: float | None = None) -> None:
        self._longest_s = longest_s
        self._first_s = longest_s if first_s is None else first_s
        self._heard_at = -1.0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """While the block waits for the server; its end counts as an answer.

        Raises:
            TimeoutError: there is none.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        longest_s = self._longest_s if self._heard_at >= 0 else self._first_s
        timer: asyncio.TimerHandle | None = None

        async with asyncio.timeout(None) as limit:

            def ring(due: float) -> None:
                nonlocal timer
                now = loop.time()
                quiet_since = max(began, self._heard_at)
                if now - due <= _LATE_S and now - quiet_since >= longest_s - _LATE_S:
                    limit.reschedule(now)
                    return
                # Another time: since the last answer, or anew where we were late ourselves.
                again = now if now - due > _LATE_S else quiet_since
                timer = loop.call_at(again + longest_s, ring, again + longest_s)

            timer = loop.call_at(began + longest_s, ring, began + longest_s)
            try:
                yield
            finally:
                timer.cancel()
            self._heard_at = loop.time()
