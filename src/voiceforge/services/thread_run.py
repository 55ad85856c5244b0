"""Events of a thread that works, for an event loop that listens; and how the loop stops the thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Generator
from typing import Generic, Protocol, TypeVar

from voiceforge.errors import Cancelled

E = TypeVar("E")


class GoOn(Protocol):
    def __call__(self, *to_stop: Callable[[], None]) -> None:
        """From here on these end the work, called from another thread.

        Raises:
            Cancelled: it is not wanted any more.
        """
        ...


class ThreadRun(Generic[E]):
    """One piece of work. Made in the loop; `work` is for the thread, all else for the loop.

    Args:
        steps: makes the blocking generator of events.
    """

    def __init__(self, steps: Callable[[GoOn], Generator[E, None, None]]) -> None:
        self._steps = steps
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[E | None] = asyncio.Queue()
        self._lock = threading.Lock()
        self._to_stop: tuple[Callable[[], None], ...] = ()
        self._cancelled = False

    async def next_event(self) -> E | None:
        """None: the work ended, well or not."""
        return await self._events.get()

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            for stop in self._to_stop:
                stop()

    def ended(self, _: asyncio.Future[None]) -> None:
        self._events.put_nowait(None)

    def work(self) -> None:
        self._go_on()  # it may have waited for its thread
        with contextlib.closing(self._steps(self._go_on)) as events:
            for event in events:
                self._send(event)

    def _go_on(self, *to_stop: Callable[[], None]) -> None:
        with self._lock:
            self._to_stop = to_stop
            if self._cancelled:
                raise Cancelled("the transcription was cancelled")

    def _send(self, event: E) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody listens any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
