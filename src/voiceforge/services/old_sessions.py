"""Sessions and one-time tokens that are over go after a while."""

from __future__ import annotations

import time
from collections.abc import Callable

from voiceforge.infra.db import one_time_tokens, sessions
from voiceforge.infra.db.database import Database
from voiceforge.services.chores import Chore

_EVERY_S = 3600.0
_KEPT_S = 7 * 86_400.0
"""An old refresh token is told from one of a session that never was for so long."""


class OldSessions:
    """Args:
    clock: Unix seconds.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    def chores(self) -> tuple[Chore, ...]:
        """To be done by one process at a time."""
        return (Chore("forget_old_sessions", _EVERY_S, self.forget),)

    async def forget(self) -> tuple[int, int]:
        """How many sessions and tokens went.

        Raises:
            Unavailable
        """
        before = self._clock() - _KEPT_S
        async with self._database.transaction() as connection:
            gone = await sessions.forget_old(connection, before)
            return gone, await one_time_tokens.forget_old(connection, before)
