"""Runs one coroutine for a command, so that Ctrl-C and SIGTERM let it clean up first, and blocking calls
that must not hold it up."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

import click

from voiceforge.cli.complaints import EXIT_TERMINATED

Result = TypeVar("Result")


async def in_background(work: Callable[..., Result], *args: object) -> Result:
    """Like `asyncio.to_thread`, but nobody waits for the thread if the caller is cancelled: for reads that
    may never return."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast(Result, result))

    def thread() -> None:
        result, failure = None, None
        try:
            result = work(*args)
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=thread, daemon=True).start()
    return await done


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Ctrl-C cancels the coroutine and comes out as KeyboardInterrupt; SIGTERM cancels it and exits 143."""
    terminated = False

    async def watched() -> Result:
        nonlocal terminated
        task = asyncio.current_task()
        assert task is not None

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        with contextlib.suppress(
            NotImplementedError, RuntimeError, ValueError
        ):  # Windows; not the main thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await coroutine

    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:
        if terminated:
            raise click.exceptions.Exit(EXIT_TERMINATED) from None
        raise
