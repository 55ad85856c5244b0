"""Threads for work that blocks, begun from an event loop that must not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial


class Closed(Exception):
    """No work is taken any more."""


class WorkThreads:
    """As many as are busy at once, up to `most`; what comes then waits for one.

    Whoever starts a thread waits until it runs, which takes long where many want to: here that is a thread
    too.
    """

    def __init__(self, most: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(most, thread_name_prefix=name)
        self._starter = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-starter")

    def start(self, work: Callable[[], None]) -> asyncio.Future[None]:
        """Its end; cancelled where `close` came before its beginning. Belongs to the event loop.

        Raises:
            Closed
        """
        end: Future[None] = Future()
        try:
            self._starter.submit(self._begin, work, end)
        except RuntimeError as error:  # how an executor says that it is closed
            raise Closed from error
        return asyncio.wrap_future(end)

    def close(self) -> None:
        """Wait for what has begun; the rest is cancelled."""
        self._starter.shutdown(wait=True)
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _begin(self, work: Callable[[], None], end: Future[None]) -> None:
        self._threads.submit(work).add_done_callback(partial(_tell, end))


def _tell(end: Future[None], done: Future[None]) -> None:
    if done.cancelled():
        end.cancel()
    if not end.set_running_or_notify_cancel():
        return
    error = done.exception()
    if error is None:
        end.set_result(None)
    else:
        end.set_exception(error)
