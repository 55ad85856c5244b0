"""Runs one coroutine for a command, so that Ctrl-C and SIGTERM let it clean up first."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

import click

from voiceforge.cli.complaints import EXIT_TERMINATED

Result = TypeVar("Result")


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
