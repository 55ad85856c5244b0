"""The way from Celery's threads to the services, which live in one event loop, and its end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Awaitable, Callable

from voiceforge.errors import StorageFull, Unavailable
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)

Call = Callable[[str], Awaitable[bool]]

_PATIENCE_S = (0.2, 5.0)
"""Between two tries of a call that finds the database away, or full: the first, and the longest."""
_CLOSED_S = 0.5
"""What still comes while the process ends is held so long, so that it does not come again at once."""


class Closed(Exception):
    """The process is on its way out: what was asked for is for another."""


class Calls:
    """Args:
    loop: in which the services live; it runs in another thread than the callers.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open = True
        self._tasks: set[asyncio.Task[bool]] = set()

    def make(self, call: Call, argument: str) -> bool:
        """Blocks until the call is done. While the database is away, or full, it is tried again.

        Raises:
            Closed
        """
        made = asyncio.run_coroutine_threadsafe(self._made(call, argument), self._loop)
        try:
            return made.result()
        except (asyncio.CancelledError, concurrent.futures.CancelledError):
            raise Closed from None
        except Closed:
            time.sleep(_CLOSED_S)
            raise

    async def close(self, timeout_s: float) -> None:
        """From the loop: stop what runs, and wait so long at most until it has given back what it had."""
        self._open = False
        for task in self._tasks:
            task.cancel()
        if self._tasks and (await asyncio.wait(self._tasks, timeout=timeout_s))[1]:
            _log.warning("not everything was given back; its leases will end")

    async def _made(self, call: Call, argument: str) -> bool:
        if not self._open:
            raise Closed
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        pause_s, longest_s = _PATIENCE_S
        try:
            while True:
                try:
                    return await call(argument)
                except (Unavailable, StorageFull) as error:
                    _log.warning("task waits", problem=error.code)
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, longest_s)
        finally:
            self._tasks.discard(task)
