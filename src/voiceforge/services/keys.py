"""API keys as their owners see them: made, listed, replaced by others, taken back.

A key is told once, when it is made; what is kept of it is a keyed hash. What becomes of keys is in force in
every process within a second; see `authentication`.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from voiceforge.errors import Conflict, InvalidRequest, NotFound, PermissionDenied, UnsupportedOption
from voiceforge.infra.db import api_keys as rows
from voiceforge.infra.db.api_keys import ApiKey
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.ids import new_id
from voiceforge.services.access import DEFAULT_TENANT, Caller, Role, Scope, scopes_of, trusted
from voiceforge.services.audit import record
from voiceforge.services.key_holders import RISING, key_hash
from voiceforge.services.key_text import hint_of, is_whole, new_key

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["OVERLAP_S", "ApiKey", "KeyWish", "Keys", "NewKey"]

OVERLAP_S = 86_400.0
_LONGEST_OVERLAP_S = 90 * 86_400.0
_MOST_USABLE = 1000
_MOST_LISTED = 101
"""A page of 100, and one more that tells whether there is another."""
_LONGEST_NAME = 200
_TIER = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_FIRST = "first owner"


@dataclass(frozen=True, slots=True)
class KeyWish:
    """A key as it is wanted.

    role: None: that of whoever makes it. A key of the role service is the tenant's own; others belong to who
        makes them, and may never do more than they.
    scopes: None: all that role and maker may. models: None: as the maker. addresses: networks; None: all.
    tier: whose limits it has; None: those of the tenant. expires_at: Unix seconds; None: never.
    """

    name: str
    role: Role | None = None
    scopes: frozenset[Scope] | None = None
    models: tuple[str, ...] | None = None
    addresses: tuple[str, ...] | None = None
    tier: str | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class NewKey:
    """text: the key itself; nobody is told it again."""

    key: ApiKey
    text: str


def _as_named(model: str) -> str:
    return model


class Keys:
    """Args:
    secret: under which keys are hashed.
    model_id: the id of a model by any of its names; raises ModelNotFound.
    clock: Unix seconds.
    """

    def __init__(
        self,
        database: Database,
        secret: bytes,
        *,
        model_id: Callable[[str], str] = _as_named,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._secret = secret
        self._model_id = model_id
        self._clock = clock

    async def create(self, caller: Caller, wish: KeyWish) -> NewKey:
        """
        Raises:
            PermissionDenied: it could do what the caller may not.
            InvalidRequest, UnsupportedOption, ModelNotFound, Unavailable
            NotFound: the caller's tenant is gone.
            Conflict: there are too many.
        """
        caller.needs(Scope.KEYS)
        text = new_key()
        made = self._wished(caller, wish, text)
        async with self._database.transaction() as connection:
            if not await rows.lock_tenant(connection, caller.tenant):
                raise NotFound("there is no such tenant")
            if await rows.count_usable(connection, caller.tenant, made.created_at) >= _MOST_USABLE:
                raise Conflict(f"there are {_MOST_USABLE} keys; revoke some first")
            await rows.add(connection, made, key_hash(self._secret, text))
            await record(connection, caller, "key.created", made.id, at=made.created_at, role=made.role)
        return NewKey(made, text)

    async def list(self, caller: Caller, *, before: str | None = None, limit: int = 20) -> Sequence[ApiKey]:
        """The newest first, at most `limit` (up to 101) of those made before the one with id `before`; also
        those that are over."""
        tenant = caller.needs(Scope.KEYS)
        async with self._database.reading() as connection:
            return await rows.newest(connection, tenant, before=before, limit=min(limit, _MOST_LISTED))

    async def show(self, caller: Caller, key_id: str) -> ApiKey:
        """
        Raises:
            NotFound, Unavailable
        """
        tenant = caller.needs(Scope.KEYS)
        async with self._database.reading() as connection:
            return _found(await rows.get(connection, tenant, key_id))

    async def rotate(self, caller: Caller, key_id: str, overlap_s: float = OVERLAP_S) -> NewKey:
        """Another key that can do the same; the old one is good for `overlap_s` more, and no longer.

        Raises:
            NotFound, InvalidRequest, Unavailable
            PermissionDenied: the key can do what the caller may not.
            Conflict: it is over already.
        """
        tenant = caller.needs(Scope.KEYS)
        if not 0 <= overlap_s <= _LONGEST_OVERLAP_S:
            raise InvalidRequest("overlap_s is at most 90 days", field="overlap_s")
        text, now = new_key(), self._clock()
        async with self._database.transaction() as connection:
            old = _found(await rows.get(connection, tenant, key_id, lock=True))
            if old.revoked_at is not None or _is_over(old, now) or old.replaced_by is not None:
                raise Conflict("this key is over, or was replaced; make a new one")
            _check_reach(caller, Role(old.role), frozenset(map(Scope, old.scopes)), old.models)
            made = replace(old, id=new_id("key", now), hint=hint_of(text), created_at=now, last_used_at=None)
            await rows.add(connection, made, key_hash(self._secret, text))
            await self._end(connection, replace(old, replaced_by=made.id), now, overlap_s)
            await record(connection, caller, "key.rotated", old.id, at=now, replaced_by=made.id)
        return NewKey(made, text)

    async def revoke(self, caller: Caller, key_id: str) -> ApiKey:
        """From now on it lets nobody in, nor does what was made with it; harmless where that is so already.

        Raises:
            NotFound, Unavailable
        """
        tenant = caller.needs(Scope.KEYS)
        async with self._database.transaction() as connection:
            key = _found(await rows.get(connection, tenant, key_id, lock=True))
            if key.revoked_at is not None:
                return key
            revoked = replace(key, revoked_at=self._clock())
            await rows.change(connection, revoked)
            await record(connection, caller, "key.revoked", key.id, at=revoked.revoked_at)
        return revoked

    async def first_owner(self, text: str | None = None) -> NewKey | None:
        """The key of whoever sets the server up, in the default tenant. None: there is one, or was.

        Args:
            text: the key that it shall be, from `new_key`; None: a new one.

        Raises:
            InvalidRequest: `text` is none.
        """
        if text is not None and not is_whole(text):
            raise InvalidRequest(
                "this is no key: make one with `voiceforge keys generate`", field="auth.first_key"
            )
        wanted = text or new_key()
        made = self._wished(trusted(), KeyWish(_FIRST, Role.OWNER), wanted)
        hashed = key_hash(self._secret, wanted)
        async with self._database.transaction() as connection:
            await rows.lock_tenant(connection, DEFAULT_TENANT)
            if text is None and await rows.count_owners(connection, DEFAULT_TENANT, made.created_at):
                return None
            if text is not None and await rows.holder_by_hash(connection, hashed) is not None:
                return None
            await rows.add(connection, made, hashed)
            await record(connection, trusted(), "key.created", made.id, at=made.created_at, role=made.role)
        return NewKey(made, wanted)

    def _wished(self, caller: Caller, wish: KeyWish, text: str) -> ApiKey:
        now = self._clock()
        name = wish.name.strip()
        if not (0 < len(name) <= _LONGEST_NAME and name.isprintable()):
            raise InvalidRequest(f"a name has 1 to {_LONGEST_NAME} printable characters", field="name")
        if wish.expires_at is not None and wish.expires_at <= now:
            raise InvalidRequest("the key would have expired already", field="expires_at")
        role = wish.role or caller.role
        models = None if wish.models is None else tuple(sorted({self._model_id(one) for one in wish.models}))
        if wish.models is None and caller.models is not None:
            models = tuple(sorted(caller.models))
        whole = scopes_of(role, caller.tenant)
        scopes = whole & caller.scopes if wish.scopes is None else wish.scopes
        for scope in sorted(scopes - whole):
            raise UnsupportedOption(
                f"the role {role} never has the scope {scope}", field="scopes", choices=sorted(whole)
            )
        _check_reach(caller, role, scopes, models)
        return ApiKey(
            id=new_id("key", now),
            tenant=caller.tenant,
            user_id=None if role is Role.SERVICE else caller.user_id,
            role=role,
            name=name,
            hint=hint_of(text),
            scopes=tuple(sorted(scopes)),
            models=models,
            addresses=_networks(wish.addresses),
            tier=_tier(caller, wish.tier),
            created_at=now,
            expires_at=wish.expires_at,
        )

    async def _end(self, connection: AsyncConnection, old: ApiKey, now: float, overlap_s: float) -> None:
        if overlap_s == 0:
            await rows.change(connection, replace(old, revoked_at=now))
            return
        ends = now + overlap_s if old.expires_at is None else min(old.expires_at, now + overlap_s)
        await rows.change(connection, replace(old, expires_at=ends))


def _found(key: ApiKey | None) -> ApiKey:
    if key is None:
        raise NotFound("there is no such key")
    return key


def _is_over(key: ApiKey, now: float) -> bool:
    return key.expires_at is not None and key.expires_at <= now


def _check_reach(
    caller: Caller, role: Role, scopes: frozenset[Scope], models: tuple[str, ...] | None
) -> None:
    """
    Raises:
        PermissionDenied: it is beyond what the caller may.
    """
    if RISING.index(role) > RISING.index(caller.role):
        raise PermissionDenied(f"you cannot make a key of the role {role}", field="role")
    for scope in sorted(scopes - caller.scopes):
        raise PermissionDenied(f"you do not have the scope {scope} yourself", field="scopes")
    if caller.models is not None and not (models is not None and caller.models.issuperset(models)):
        raise PermissionDenied("you may not use all of these models yourself", field="models")


def _networks(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    try:
        return tuple(sorted({str(ipaddress.ip_network(name.strip(), strict=False)) for name in names}))
    except ValueError:
        raise InvalidRequest(
            "addresses are such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32", field="addresses"
        ) from None


def _tier(caller: Caller, tier: str | None) -> str | None:
    if tier is None:
        return None
    caller.needs(Scope.TENANTS)
    if not _TIER.fullmatch(tier):
        raise InvalidRequest("the name of a tier is such as pro", field="tier")
    return tier
