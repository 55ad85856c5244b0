"""Who was not let in, for the audit log: counted, and told of now and then, so that a flood of tries is not
one of entries."""

from __future__ import annotations

from collections import Counter

from voiceforge.infra.db.database import Database
from voiceforge.services.audit import record_for_nobody
from voiceforge.services.chores import Chore

ACTION = "sign_in.refused"
_TELL_EVERY_S = 60.0
_MOST_ENTRIES = 20
"""Each time, of each process."""
_MOST_ADDRESSES = 2000


class RefusedTries:
    """Belongs to one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: Counter[tuple[str | None, str]] = Counter()
        self._uncounted = 0

    def add(self, address: str | None, code: str) -> None:
        """code: of the error that told them no."""
        if (address, code) in self._counts or len(self._counts) < _MOST_ADDRESSES:
            self._counts[address, code] += 1
        else:
            self._uncounted += 1

    def chores(self) -> tuple[Chore, ...]:
        """For each process."""
        return (Chore("tell_refused_tries", _TELL_EVERY_S, self.tell),)

    async def tell(self) -> int:
        """Write an entry for each address and reason, those with the most tries first, and one for what is
        beyond; how many entries those were.

        Raises:
            Unavailable: they are kept for the next time.
        """
        counts, uncounted = self._counts, self._uncounted
        if not counts:
            return 0
        self._counts, self._uncounted = Counter(), 0
        told, rest = counts.most_common(_MOST_ENTRIES), counts.most_common()[_MOST_ENTRIES:]
        try:
            async with self._database.transaction() as connection:
                for (address, code), count in told:
                    await record_for_nobody(connection, ACTION, address=address, code=code, count=count)
                if rest or uncounted:
                    count = sum(count for _, count in rest) + uncounted
                    await record_for_nobody(connection, ACTION, code="several", count=count)
        except BaseException:
            for (address, code), count in counts.items():
                self._counts[address, code] += count
            self._uncounted += uncounted
            raise
        return len(told) + bool(rest or uncounted)
