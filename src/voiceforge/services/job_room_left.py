"""Whether there is room for another job of a caller, as their tiers say: in the queue, and in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from voiceforge.errors import QuotaExceeded, RateLimited
from voiceforge.infra.db import holdings
from voiceforge.services.access import Caller
from voiceforge.services.tiers import Tier, Tiers

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_RETRY_AFTER_S = 10.0
"""Nobody knows when one of the others is done."""


class RoomLeft:
    """Asked in the transaction that accepts, it is exact: others of the same tenant wait for its end."""

    def __init__(self, tiers: Tiers) -> None:
        self._tiers = tiers

    def limited(self, caller: Caller) -> bool:
        """Whether there is anything to ask."""
        return any(
            tier.queued_jobs is not None or tier.storage_bytes is not None
            for _, tier in self._tiers_of(caller)
        )

    async def check(
        self, connection: AsyncConnection, caller: Caller, size_bytes: int = 0, *, holding: bool = True
    ) -> None:
        """
        Args:
            size_bytes: of what is to be stored besides.
            holding: False: only to find out early.

        Raises:
            RateLimited: as many jobs as may wait do.
            QuotaExceeded: there is no room for the recording.
        """
        if not self.limited(caller):
            return
        if holding:
            await holdings.hold(connection, caller.tenant)
        for key_id, tier in self._tiers_of(caller):
            if tier.queued_jobs is not None:
                waiting = await holdings.open_jobs(connection, caller.tenant, key_id)
                if waiting >= tier.queued_jobs:
                    raise RateLimited(
                        f"{tier.queued_jobs} jobs may wait or be worked on at once",
                        retry_after_s=_RETRY_AFTER_S,
                    )
            if tier.storage_bytes is not None:
                stored = await holdings.stored_bytes(connection, caller.tenant)
                if stored + size_bytes > tier.storage_bytes:
                    raise QuotaExceeded(
                        f"your recordings may take {tier.storage_bytes} bytes, and do: erase some"
                    )

    def _tiers_of(self, caller: Caller) -> list[tuple[str | None, Tier]]:
        found: list[tuple[str | None, Tier]] = []
        if caller.tier is not None:
            found.append((None, self._tiers.of(caller.tier)))
        if caller.key_tier is not None and caller.key_id is not None:
            found.append((caller.key_id, self._tiers.of(caller.key_tier)))
        return found
