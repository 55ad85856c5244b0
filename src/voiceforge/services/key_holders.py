"""Who comes in with a key: looked up in the database, and told why where nobody does."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Callable

from voiceforge.errors import ExpiredCredential, RevokedCredential, Unauthenticated, VoiceForgeError
from voiceforge.infra.db import api_keys as rows
from voiceforge.infra.db import tenants
from voiceforge.infra.db.api_keys import ApiKey, Holder
from voiceforge.infra.db.database import Database
from voiceforge.services.access import Caller, Role, Scope, scopes_of
from voiceforge.services.authentication import Known
from voiceforge.telemetry.logger import Logger

RISING = (Role.VIEWER, Role.SERVICE, Role.MEMBER, Role.ADMIN, Role.OWNER)
"""Each may do more than those before."""
_MARK_EVERY_S = 60.0

_log = Logger(__name__)


def key_hash(secret: bytes, key: str) -> str:
    """What is kept of a key. It says nothing to who has only the database."""
    return hmac.digest(secret, key.encode(), "sha256").hex()


class KeyHolders:
    """Args:
    secret: under which keys are hashed.
    clock: Unix seconds.
    """

    def __init__(self, database: Database, secret: bytes, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._secret = secret
        self._clock = clock
        self._marking: set[asyncio.Task[None]] = set()

    async def of_key(self, key: str) -> Known:
        """
        Raises:
            Unauthenticated, RevokedCredential, ExpiredCredential, Unavailable
        """
        async with self._database.reading() as connection:
            holder = await rows.holder_by_hash(connection, key_hash(self._secret, key))
        return self._in_force(holder)

    async def of_key_id(self, key_id: str) -> Known:
        """Raises as `of_key` does."""
        async with self._database.reading() as connection:
            holder = await rows.holder_by_id(connection, key_id)
        return self._in_force(holder)

    async def of_user(self, user_id: str) -> Known:
        """Raises as `of_key` does."""
        async with self._database.reading() as connection:
            holder = await rows.holder_by_user(connection, user_id)
        return self._in_force(holder)

    async def tier_of_tenant(self, tenant: str) -> str:
        """Raises as `of_key` does."""
        async with self._database.reading() as connection:
            found = await tenants.get(connection, tenant)
        if found is None:
            raise Unauthenticated("there is no such tenant")
        if found.disabled_at is not None:
            raise RevokedCredential("the account was disabled")
        return found.tier

    async def close(self) -> None:
        await asyncio.gather(*self._marking)

    def _in_force(self, holder: Holder | None) -> Known:
        if holder is None:
            raise Unauthenticated("the API key is not valid")
        if not holder.in_force:
            raise RevokedCredential("the account was disabled")
        key = holder.key
        if key is None:
            role = Role(holder.role or Role.VIEWER)
            scopes = scopes_of(role, holder.tenant)
            return Known(Caller(holder.tenant, role, scopes, holder.user_id, tier=holder.tier))
        now = self._clock()
        if key.revoked_at is not None:
            raise RevokedCredential("the API key was revoked")
        if key.expires_at is not None and key.expires_at <= now:
            told = "has expired" if key.replaced_by is None else "was replaced by another"
            raise ExpiredCredential(f"the API key {told}")
        self._mark_used(key, now)
        return _known(holder, key)

    def _mark_used(self, key: ApiKey, now: float) -> None:
        """In its own time, and not each time: nobody waits for it."""
        if key.last_used_at is None or now - key.last_used_at >= _MARK_EVERY_S:
            task = asyncio.create_task(self._write_used(key.id, now))
            self._marking.add(task)
            task.add_done_callback(self._marking.discard)

    async def _write_used(self, key_id: str, at: float) -> None:
        try:
            async with self._database.transaction() as connection:
                await rows.mark_used(connection, key_id, at)
        except VoiceForgeError as error:
            _log.info("use of a key not noted", key_id=key_id, problem=error.message)


def _known(holder: Holder, key: ApiKey) -> Known:
    role = Role(key.role) if holder.role is None else lower_role(Role(key.role), Role(holder.role))
    caller = Caller(
        tenant=holder.tenant,
        role=role,
        scopes=frozenset(map(Scope, key.scopes)) & scopes_of(role, holder.tenant),
        user_id=key.user_id,
        key_id=key.id,
        models=None if key.models is None else frozenset(key.models),
        tier=holder.tier,
        key_tier=key.tier,
    )
    networks = None if key.addresses is None else tuple(map(ipaddress.ip_network, key.addresses))
    return Known(caller, networks)


def lower_role(one: Role, other: Role) -> Role:
    """The one that may do less. A key that was made for an owner is an admin's once they are one."""
    return min(one, other, key=RISING.index)
