"""Tenants, as whoever runs the server sees them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from voiceforge.errors import Conflict, InvalidRequest, NotFound, UnsupportedOption
from voiceforge.infra.db import tenants as rows
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.tenants import Tenant
from voiceforge.services.access import DEFAULT_TENANT, Caller, Role, Scope, trusted
from voiceforge.services.accounts import checked_name
from voiceforge.services.audit import record
from voiceforge.services.members import HandedOut, Members

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["Tenant", "Tenants"]

_MOST_LISTED = 101


class Tenants:
    """Args:
    tiers: the names that there are, asked each time; None: whatever is said.
    clock: Unix seconds.
    """

    def __init__(
        self,
        database: Database,
        members: Members,
        *,
        tiers: Callable[[], Collection[str]] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._members = members
        self._tiers = tiers
        self._clock = clock

    async def list(self, caller: Caller, *, before: str | None = None, limit: int = 20) -> Sequence[Tenant]:
        """At most `limit` (up to 101) of those behind the one with id `before`."""
        caller.needs(Scope.TENANTS)
        async with self._database.reading() as connection:
            return await rows.listed(connection, before=before, limit=min(limit, _MOST_LISTED))

    async def show(self, caller: Caller, tenant_id: str) -> Tenant:
        """
        Raises:
            NotFound, Unavailable
        """
        caller.needs(Scope.TENANTS)
        async with self._database.reading() as connection:
            return await _get(connection, tenant_id)

    async def create(
        self, caller: Caller, name: str, tier: str, owner_email: str | None = None
    ) -> tuple[Tenant, HandedOut | None]:
        """owner_email: who is invited to own it.

        Raises:
            InvalidRequest, UnsupportedOption, Unavailable
        """
        caller.needs(Scope.TENANTS)
        self._check_tier(tier)
        now = self._clock()
        made = Tenant(new_id("tn", now), _named(name), tier, now)
        async with self._database.transaction() as connection:
            await rows.add(connection, made)
            await record(connection, caller, "tenant.created", made.id, at=now, tier=tier)
        if owner_email is None:
            return made, None
        return made, await self._members.invite(trusted(made.id), owner_email, Role.OWNER)

    async def change(
        self,
        caller: Caller,
        tenant_id: str,
        *,
        name: str | None = None,
        tier: str | None = None,
        disabled: bool | None = None,
    ) -> Tenant:
        """What is None stays as it is. Who belongs to a disabled one is refused everywhere within a second.

        Raises:
            NotFound, InvalidRequest, UnsupportedOption, Unavailable
            Conflict: it is the one that runs the server.
        """
        caller.needs(Scope.TENANTS)
        if tier is not None:
            self._check_tier(tier)
        if disabled and tenant_id == DEFAULT_TENANT:
            raise Conflict("this tenant runs the server: it stays")
        now = self._clock()
        async with self._database.transaction() as connection:
            tenant = await _get(connection, tenant_id)
            changed = replace(
                tenant,
                name=tenant.name if name is None else _named(name),
                tier=tenant.tier if tier is None else tier,
                disabled_at=tenant.disabled_at
                if disabled is None
                else (tenant.disabled_at or now)
                if disabled
                else None,
            )
            await rows.change(connection, changed)
            await _tell_both(connection, caller, tenant, changed, now)
        return changed

    def _check_tier(self, tier: str) -> None:
        if self._tiers is None:
            return
        known = tuple(self._tiers())
        if tier not in known:
            raise UnsupportedOption(f"there is no tier {tier[:40]!r}", field="tier", choices=known)


async def _tell_both(
    connection: AsyncConnection, caller: Caller, before: Tenant, after: Tenant, now: float
) -> None:
    """Who runs the server, and the tenant: each has it in their log."""
    fields = [
        name for name in ("name", "tier", "disabled_at") if getattr(before, name) != getattr(after, name)
    ]
    # In an order that is always the same, since each is locked.
    for log in sorted({caller.tenant, after.id}):
        await record(
            connection, caller, "tenant.changed", after.id, tenant=log, at=now, fields=fields, tier=after.tier
        )


async def _get(connection: AsyncConnection, tenant_id: str) -> Tenant:
    tenant = await rows.get(connection, tenant_id)
    if tenant is None:
        raise NotFound("there is no such tenant")
    return tenant


def _named(text: str) -> str:
    name = checked_name(text)
    if name is None:
        raise InvalidRequest("a tenant has a name", field="name")
    return name
