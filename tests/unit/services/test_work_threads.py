"""Blocking work begun from an event loop: how it ends, and what closing does to what has not begun."""

from __future__ import annotations

import asyncio
import threading

import pytest

from voiceforge.services.work_threads import Closed, WorkThreads


async def test_work_runs_at_once_and_its_failure_is_told() -> None:
    threads = WorkThreads(2, "test")
    both = threading.Barrier(2)

    def fail() -> None:
        raise ValueError("broken")

    async with asyncio.timeout(10):
        await asyncio.gather(*(threads.start(lambda: both.wait(10) and None) for _ in range(2)))
        with pytest.raises(ValueError, match="broken"):
            await threads.start(fail)
    threads.close()


async def test_closing_waits_for_what_began_and_cancels_the_rest() -> None:
    threads = WorkThreads(1, "test")
    began, go_on = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go_on.wait(10)

    first = threads.start(work)
    await asyncio.to_thread(began.wait, 10)
    second = threads.start(work)
    closing = asyncio.create_task(asyncio.to_thread(threads.close))
    async with asyncio.timeout(10):
        await asyncio.wait([second])
        assert second.cancelled()
        assert not first.done()
        go_on.set()
        await closing
        await first
    with pytest.raises(Closed):
        threads.start(work)
