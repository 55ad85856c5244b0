"""The queue of a process that works on its jobs itself: a bell, since the jobs stand in the database."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from voiceforge.infra.jobqueue.base import Task


class EmbeddedQueue:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Event] = set()

    async def offer(self, tasks: Sequence[Task]) -> bool:
        if tasks:
            for bell in self._waiting:
                bell.set()
        return True

    async def held(self) -> None:
        return None

    async def wait(self, timeout_s: float) -> None:
        """Until something was offered, or for so long."""
        bell = asyncio.Event()
        self._waiting.add(bell)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(bell.wait(), timeout_s)
        finally:
            self._waiting.discard(bell)

    async def close(self) -> None:
        pass
