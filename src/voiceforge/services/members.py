"""The people of a tenant, as its admins see them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from voiceforge.errors import Conflict, InvalidRequest, NotFound, PermissionDenied
from voiceforge.infra.db import one_time_tokens, sessions, tenants, users
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.records_people import OneTimeToken, Purpose, User
from voiceforge.services.access import Caller, Role, Scope
from voiceforge.services.accounts import checked_email, checked_name, new_user
from voiceforge.services.audit import record
from voiceforge.services.letter_desk import Letter, LetterDesk, LetterKind
from voiceforge.services.one_time import LIFE_S, OneTime
from voiceforge.services.passwords import Passwords, check_password

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["HandedOut", "Invitation", "Members", "User"]

_MOST_LISTED = 101
_MOST_INVITED = 1000


@dataclass(frozen=True, slots=True)
class Invitation:
    """Somebody who was asked and has not answered."""

    email: str
    role: Role
    created_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class HandedOut:
    """A one-time token. token: None: a letter brings it."""

    email: str
    token: str | None = field(repr=False)
    expires_at: float


class Members:
    """Args:
    clock: Unix seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        passwords: Passwords,
        one_time: OneTime,
        letters: LetterDesk,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._one_time = one_time
        self._letters = letters
        self._clock = clock

    async def list(self, caller: Caller, *, before: str | None = None, limit: int = 20) -> Sequence[User]:
        """The newest first, at most `limit` (up to 101) of those made before the one with id `before`."""
        tenant = caller.needs(Scope.USERS)
        async with self._database.reading() as connection:
            return await users.newest(connection, tenant, before=before, limit=min(limit, _MOST_LISTED))

    async def show(self, caller: Caller, user_id: str) -> User:
        """
        Raises:
            NotFound, Unavailable
        """
        tenant = caller.needs(Scope.USERS)
        async with self._database.reading() as connection:
            return _found(await users.get(connection, tenant, user_id))

    async def add(
        self, caller: Caller, email: str, role: Role, *, name: str | None = None, password: str | None = None
    ) -> User:
        """Somebody whose address needs no confirmation: for who runs the server, and for programs.

        Args:
            password: None: they have none; an admin hands out what sets one.

        Raises:
            InvalidRequest, WeakPassword, PermissionDenied, Unavailable
            Conflict: the address has an account.
            NotFound: there is no such tenant.
        """
        tenant = caller.needs(Scope.USERS)
        _may_give(caller, role)
        address, wished = checked_email(email), checked_name(name)
        if password is not None:
            if role is Role.SERVICE:
                raise InvalidRequest("a program has keys and no password", field="password")
            check_password(password, address, wished)
        password_hash = None if password is None else await self._passwords.hashed(password)
        made = new_user(tenant, address, role, self._clock(), name=wished, password_hash=password_hash)
        async with self._database.transaction() as connection:
            if await tenants.get(connection, tenant) is None:
                raise NotFound("there is no such tenant", field="tenant")
            if not await users.add(connection, made):
                raise Conflict("this address has an account already")
            await self._tell(connection, caller, made, "user.added")
        return made

    async def invite(self, caller: Caller, email: str, role: Role) -> HandedOut:
        """The answer is the same for addresses that have an account: those get no letter.

        Raises:
            InvalidRequest, PermissionDenied, Unavailable
            Conflict: too many are invited.
        """
        tenant_id = caller.needs(Scope.USERS)
        _may_give(caller, role)
        if role is Role.SERVICE:
            raise InvalidRequest("programs are not invited: add them", field="role")
        address, now = checked_email(email), self._clock()
        async with self._database.transaction() as connection:
            tenant = await tenants.get(connection, tenant_id)
            waiting = await one_time_tokens.waiting(connection, Purpose.INVITE, now, tenant=tenant_id)
            if len(waiting) >= _MOST_INVITED:
                raise Conflict("too many invitations wait for an answer")
            for one in waiting:
                if one.data["email"] == address:
                    await one_time_tokens.forget(connection, one.hash)
            token = await self._one_time.make(
                connection,
                Purpose.INVITE,
                tenant_id,
                now,
                data={"email": address, "role": role.value},
            )
            known = await users.by_email(connection, address)
            await record(connection, caller, "user.invited", at=now, role=role.value)
        expires_at = now + LIFE_S[Purpose.INVITE]
        if known is None:
            name = None if tenant is None else tenant.name
            self._letters.post(Letter(LetterKind.INVITE, address, token, expires_at, name))
        return self._handed_out(address, token, expires_at)

    async def invitations(self, caller: Caller) -> Sequence[Invitation]:
        """Those that nobody has answered, the newest first."""
        tenant = caller.needs(Scope.USERS)
        async with self._database.reading() as connection:
            found = await one_time_tokens.waiting(connection, Purpose.INVITE, self._clock(), tenant=tenant)
        return [_invitation(one) for one in found]

    async def withdraw(self, caller: Caller, email: str) -> None:
        """Nobody can answer the invitation any more.

        Raises:
            NotFound, Unavailable
        """
        tenant, address = caller.needs(Scope.USERS), email.strip().lower()
        async with self._database.transaction() as connection:
            waiting = await one_time_tokens.waiting(connection, Purpose.INVITE, self._clock(), tenant=tenant)
            gone = [one for one in waiting if one.data["email"] == address]
            if not gone:
                raise NotFound("nobody with this address is invited")
            for one in gone:
                await one_time_tokens.forget(connection, one.hash)
            await record(connection, caller, "user.invitation_withdrawn", at=self._clock())

    async def change(
        self, caller: Caller, user_id: str, *, role: Role | None = None, disabled: bool | None = None
    ) -> User:
        """In every process within a second. What is None stays as it is. Who is disabled loses their
        sessions, and their keys are refused meanwhile.

        Raises:
            NotFound, PermissionDenied, Unavailable
            Conflict: no owner would be left, or a program would become a person, or the other way round.
        """
        tenant, now = caller.needs(Scope.USERS), self._clock()
        async with self._database.transaction() as connection:
            user = await self._target(connection, caller, tenant, user_id)
            changed = user
            if role is not None and role != user.role:
                _may_give(caller, role)
                if Role.SERVICE in (role, user.role):
                    raise Conflict("a program stays a program, and a person a person")
                changed = replace(changed, role=role.value)
                await users.set_role(connection, user.id, role.value)
                await self._tell(connection, caller, changed, "user.role_changed")
            if disabled is not None and disabled != (user.disabled_at is not None):
                changed = replace(changed, disabled_at=now if disabled else None)
                await users.set_disabled(connection, user.id, changed.disabled_at)
                if disabled:
                    await sessions.end_all(connection, user.id, now)
                    await one_time_tokens.void(connection, user.id, Purpose.RESET)
                action = "user.disabled" if disabled else "user.enabled"
                await self._tell(connection, caller, changed, action)
            if _leads(user) and not _leads(changed):
                await _keep_an_owner(connection, tenant)
        return changed

    async def remove(self, caller: Caller, user_id: str) -> None:
        """With their sessions and keys. What they had transcribed stays: it is the tenant's.

        Raises:
            NotFound, PermissionDenied, Unavailable
            Conflict: no owner would be left.
        """
        tenant = caller.needs(Scope.USERS)
        async with self._database.transaction() as connection:
            user = await self._target(connection, caller, tenant, user_id)
            await users.remove(connection, user.id)
            if _leads(user):
                await _keep_an_owner(connection, tenant)
            await self._tell(connection, caller, user, "user.removed")

    async def hand_out_reset(self, caller: Caller, user_id: str) -> HandedOut:
        """What lets somebody set another password.

        Raises:
            NotFound, PermissionDenied, Unavailable
            Conflict: they may not come in.
        """
        tenant, now = caller.needs(Scope.USERS), self._clock()
        async with self._database.transaction() as connection:
            user = await self._target(connection, caller, tenant, user_id)
            if user.disabled_at is not None or user.role == Role.SERVICE:
                raise Conflict("this account cannot log in")
            token = await self._one_time.make(connection, Purpose.RESET, tenant, now, user_id=user.id)
            await self._tell(connection, caller, user, "user.reset_handed_out")
        expires_at = now + LIFE_S[Purpose.RESET]
        self._letters.post(Letter(LetterKind.RESET, user.email, token, expires_at))
        return self._handed_out(user.email, token, expires_at)

    def _handed_out(self, email: str, token: str, expires_at: float) -> HandedOut:
        return HandedOut(email, None if self._letters.sends else token, expires_at)

    async def _target(self, connection: AsyncConnection, caller: Caller, tenant: str, user_id: str) -> User:
        """Whoever is to be changed; nobody else in the tenant is until the end of the transaction."""
        await users.lock_tenant(connection, tenant)
        user = _found(await users.get(connection, tenant, user_id))
        if user.role == Role.OWNER and caller.role is not Role.OWNER:
            raise PermissionDenied("only an owner changes an owner")
        return user

    async def _tell(self, connection: AsyncConnection, caller: Caller, user: User, action: str) -> None:
        """For the audit log."""
        await record(connection, caller, action, user.id, at=self._clock(), role=user.role)


def _found(user: User | None) -> User:
    if user is None:
        raise NotFound("there is no such user")
    return user


def _may_give(caller: Caller, role: Role) -> None:
    if role is Role.OWNER and caller.role is not Role.OWNER:
        raise PermissionDenied("only an owner makes another owner", field="role")


def _leads(user: User) -> bool:
    return user.role == Role.OWNER and user.disabled_at is None


async def _keep_an_owner(connection: AsyncConnection, tenant: str) -> None:
    """
    Raises:
        Conflict: there is none any more; what was done about it is undone.
    """
    if not await users.count_owners(connection, tenant):
        raise Conflict("this is the last owner: make another one first")


def _invitation(token: OneTimeToken) -> Invitation:
    return Invitation(token.data["email"], Role(token.data["role"]), token.created_at, token.expires_at)
