"""Work that comes round again: what concerns a whole cluster is done by one of its processes, each time; what
concerns one machine by each process for itself."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from voiceforge.errors import VoiceForgeError
from voiceforge.infra.db import chores as rows
from voiceforge.infra.db.database import Database
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)

_LOOKS_PER_PERIOD = 2
_SHORTEST_LOOK_S = 0.5
_LONGEST_LOOK_S = 30.0
_FIRST_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Chore:
    """every_s: from one end to the next beginning. lease_s: who takes longer may get company, and who died
    over it is waited for so long; of no meaning where each process does it for itself."""

    name: str
    every_s: float
    act: Callable[[], Awaitable[object]]
    lease_s: float = 30.0


class OwnChores:
    """What no other process can do for us: the folders of this machine. Others of the same machine may do the
    same at the same time, and no database need be there."""

    def __init__(self, chores: Sequence[Chore]) -> None:
        self._chores = tuple(chores)

    async def run(self) -> None:
        """Until cancelled; each is done soon, and again after its period, or sooner where what it needs was
        away. What fails is told."""
        async with asyncio.TaskGroup() as group:
            for chore in self._chores:
                group.create_task(self._repeat(chore))

    async def _repeat(self, chore: Chore) -> None:
        await asyncio.sleep(random.uniform(0, _FIRST_WITHIN_S))  # noqa: S311  # many start at once
        while True:
            wait_s = chore.every_s
            try:
                await chore.act()
            except VoiceForgeError as error:
                _log.warning("chore waits", chore=chore.name, problem=error.code)
                wait_s = min(wait_s, _LONGEST_LOOK_S)
            except Exception:
                _log.exception("chore failed", chore=chore.name)
            await asyncio.sleep(wait_s * random.uniform(0.8, 1.2))  # noqa: S311


class Chores:
    """What concerns a whole cluster.

    Args:
        clock: Unix seconds.
    """

    def __init__(
        self, database: Database, chores: Sequence[Chore], *, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._chores = tuple(chores)
        self._clock = clock

    async def run(self) -> None:
        """Until cancelled. What fails is told, and tried again when it is due again."""
        async with asyncio.TaskGroup() as group:
            for chore in self._chores:
                group.create_task(self._look_after(chore))

    async def _look_after(self, chore: Chore) -> None:
        look_s = min(max(chore.every_s / _LOOKS_PER_PERIOD, _SHORTEST_LOOK_S), _LONGEST_LOOK_S)
        known = False
        while True:
            try:
                if not known:
                    async with self._database.transaction() as connection:
                        await rows.add(connection, chore.name, self._clock())
                    known = True
                await self.do_if_due(chore)
            except VoiceForgeError as error:
                _log.warning("chore waits", chore=chore.name, problem=error.code)
            except Exception:
                _log.exception("chore failed", chore=chore.name)
            await asyncio.sleep(look_s * random.uniform(0.8, 1.2))  # noqa: S311  # not all at once

    async def do_if_due(self, chore: Chore) -> bool:
        """Whether it was this process' turn.

        Raises:
            Unavailable, and whatever the chore raises; then it is due again after its period.
        """
        now = self._clock()
        async with self._database.reading() as connection:
            if not await rows.is_due(connection, chore.name, now):
                return False
        async with self._database.transaction() as connection:
            token = await rows.claim(connection, chore.name, now=now, lease_s=chore.lease_s)
        if token is None:
            return False
        try:
            await chore.act()
        finally:
            now = self._clock()
            async with self._database.transaction() as connection:
                await rows.done(connection, chore.name, token, now=now, due_at=now + chore.every_s)
        return True
