"""Coming in: registering, logging in, and what becomes of passwords.

Who is not logged in learns nothing about who has an account: neither by what is answered nor by how long
that takes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from voiceforge.errors import Conflict, InvalidRequest, NotFound, PermissionDenied, WrongPassword
from voiceforge.infra.db import one_time_tokens, sessions, tenants, users
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.records_people import OneTimeToken, Purpose, User
from voiceforge.infra.db.tenants import Tenant
from voiceforge.services.access import Caller, Role, trusted
from voiceforge.services.attempts import Attempts
from voiceforge.services.audit import record
from voiceforge.services.letter_desk import Letter, LetterDesk, LetterKind
from voiceforge.services.one_time import LIFE_S, OneTime
from voiceforge.services.passwords import Passwords, check_password
from voiceforge.services.sign_ins import Origin, SignIns, Tokens, as_caller
from voiceforge.telemetry.logger import Logger

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["Accounts", "Registrant", "Registration", "User", "checked_email", "checked_name", "new_user"]

_log = Logger(__name__)

_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]{1,189}")
_LONGEST_NAME = 200
_WRONG = "the address or the password is wrong, or this account cannot log in"
_NEW_TIER = "free"


class Registration(StrEnum):
    CLOSED = "closed"
    INVITATION = "invitation"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Registrant:
    """Who wants to come in. organisation: the name of a new tenant; None: that of the person, or the
    address."""

    email: str
    password: str
    name: str | None = None
    organisation: str | None = None


class Accounts:
    """Args:
    tier: of tenants that register by themselves.
    on_refused: told the address and the code of who was not let in.
    clock: Unix seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        sign_ins: SignIns,
        passwords: Passwords,
        one_time: OneTime,
        letters: LetterDesk,
        attempts: Attempts,
        registration: Registration = Registration.INVITATION,
        tier: str = _NEW_TIER,
        on_refused: Callable[[str | None, str], None] = lambda address, code: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._sign_ins = sign_ins
        self._passwords = passwords
        self._one_time = one_time
        self._letters = letters
        self._attempts = attempts
        self._registration = registration
        self._tier = tier
        self._on_refused = on_refused
        self._clock = clock

    async def register(self, who: Registrant, origin: Origin) -> None:
        """A letter goes to the address: with what confirms it, or, where it has an account already, saying
        so. Nothing else is there until it is confirmed.

        Raises:
            PermissionDenied: nobody registers here by themselves.
            InvalidRequest, WeakPassword, RateLimited, Overloaded, Unavailable
        """
        if self._registration is not Registration.OPEN:
            raise PermissionDenied("nobody registers here without an invitation")
        email, name = checked_email(who.email), checked_name(who.name)
        organisation = checked_name(who.organisation, "organisation")
        check_password(who.password, email, name)
        await self._attempts.ask(origin.address)
        password_hash = await self._passwords.hashed(who.password)
        may_write = await self._attempts.may_send_letter(email)
        now = self._clock()
        # The same steps for both, so that both take as long.
        async with self._database.transaction() as connection:
            known = await users.by_email(connection, email)
            if known is None:
                purpose, kind = Purpose.VERIFY, LetterKind.VERIFY
                data = {
                    "email": email,
                    "name": name,
                    "organisation": organisation,
                    "password_hash": password_hash,
                }
                token = await self._one_time.make(connection, purpose, "", now, data=data)
            else:
                purpose, kind = Purpose.RESET, LetterKind.ALREADY_REGISTERED
                token = await self._one_time.make(connection, purpose, known.tenant, now, user_id=known.id)
        if may_write:
            self._letters.post(Letter(kind, email, token, now + LIFE_S[purpose]))

    async def verify(self, token: str, origin: Origin) -> User:
        """What was registered comes into being: a tenant with its owner.

        Raises:
            InvalidRequest: the token is good for nothing, or not any more.
            Conflict: the address got an account meanwhile.
            RateLimited, Unavailable
        """
        await self._attempts.ask(origin.address)
        async with self._database.transaction() as connection:
            used = await self._one_time.use(connection, token, Purpose.VERIFY, self._clock())
            return await self._settle(connection, used, origin)

    async def verify_by_hand(self, email: str) -> User:
        """For who runs the server, where no letters are sent: confirm the newest registration of an address.

        Raises:
            NotFound: nobody registered with it, or too long ago.
            Conflict, Unavailable
        """
        wanted, now = checked_email(email), self._clock()
        async with self._database.transaction() as connection:
            for waiting in await one_time_tokens.waiting(connection, Purpose.VERIFY, now):
                if waiting.data["email"] == wanted:
                    await one_time_tokens.forget(connection, waiting.hash)
                    return await self._settle(connection, waiting, None)
        raise NotFound("nobody has registered with this address and waits")

    async def join(self, token: str, password: str, name: str | None, origin: Origin) -> User:
        """Take up an invitation. The address is the one that was invited.

        Raises:
            PermissionDenied: nobody registers here.
            InvalidRequest, WeakPassword, RateLimited, Overloaded, Unavailable
            Conflict: the address has an account meanwhile.
        """
        if self._registration is Registration.CLOSED:
            raise PermissionDenied("nobody registers here")
        wished = checked_name(name)
        check_password(password, wished)
        await self._attempts.ask(origin.address)
        password_hash = await self._passwords.hashed(password)
        now = self._clock()
        async with self._database.transaction() as connection:
            used = await self._one_time.use(connection, token, Purpose.INVITE, now)
            tenant = await tenants.get(connection, used.tenant)
            if tenant is None or tenant.disabled_at is not None:
                raise InvalidRequest("whoever invited you is not there any more", field="token")
            made = new_user(
                used.tenant,
                used.data["email"],
                Role(used.data["role"]),
                now,
                name=wished,
                password_hash=password_hash,
            )
            check_password(password, made.email)
            await _add(connection, made)
            await self._tell(connection, made, "user.joined", origin)
        return made

    async def log_in(self, email: str, password: str, origin: Origin) -> Tokens:
        """
        Raises:
            WrongPassword: or nobody has that address, or they may not come in; it takes as long.
            RevokedCredential: the tenant is disabled.
            RateLimited, Overloaded, Unavailable
        """
        address = email.strip().lower()
        await self._attempts.log_in(address, origin.address)
        async with self._database.reading() as connection:
            found = await users.by_email(connection, address) if _is_email(address) else None
        stored = found.password_hash if found is not None and _may_log_in(found) else None
        if not await self._passwords.matches(password, stored) or found is None or stored is None:
            _log.info("login_failed", address=origin.address)
            self._on_refused(origin.address, WrongPassword.code)
            raise WrongPassword(_WRONG)
        renewed = await self._passwords.renewed(password, stored)
        async with self._database.transaction() as connection:
            # What was changed while the password was compared counts.
            user = await users.lock(connection, found.id)
            if user is None or not _may_log_in(user) or user.password_hash != stored:
                raise WrongPassword(_WRONG)
            if renewed is not None:
                await users.set_password(connection, user.id, renewed)
            refresh = await self._sign_ins.begin(connection, user, origin)
            await self._tell(connection, user, "user.logged_in", origin)
        await self._attempts.logged_in(address, origin.address)
        return await self._sign_ins.answer(user, refresh)

    async def log_out_everywhere(self, caller: Caller) -> int:
        """How many sessions ended.

        Raises:
            PermissionDenied: the caller is no person.
            Unavailable
        """
        async with self._database.transaction() as connection:
            user = await self._myself(connection, caller)
            ended = await sessions.end_all(connection, user.id, self._clock())
            await record(connection, caller, "user.logged_out_everywhere", user.id, sessions=ended)
        return ended

    async def me(self, caller: Caller) -> tuple[User | None, Tenant]:
        """The caller's own account, if they have one, and tenant.

        Raises:
            NotFound, Unavailable
        """
        async with self._database.reading() as connection:
            tenant = await tenants.get(connection, caller.tenant)
            if tenant is None:
                raise NotFound("this tenant is not there any more")
            if caller.user_id is None:
                return None, tenant
            return await users.get(connection, caller.tenant, caller.user_id), tenant

    async def change_password(self, caller: Caller, current: str, new: str, origin: Origin) -> Tokens:
        """Every session ends; the answer is a new one.

        Raises:
            WrongPassword, WeakPassword, RateLimited, Overloaded, Unavailable
            PermissionDenied: the caller is no person with a password.
        """
        async with self._database.reading() as connection:
            user = await self._myself(connection, caller)
        if user.password_hash is None:
            raise PermissionDenied("this account has no password: it comes in by single sign-on")
        check_password(new, user.email, user.name)
        await self._attempts.log_in(user.email, origin.address)
        if not await self._passwords.matches(current, user.password_hash):
            self._on_refused(origin.address, WrongPassword.code)
            raise WrongPassword("the current password is wrong")
        password_hash = await self._passwords.hashed(new)
        async with self._database.transaction() as connection:
            locked = await users.lock(connection, user.id)
            if locked is None or locked.password_hash != user.password_hash or not _may_log_in(locked):
                raise Conflict("the password was changed at the same time")
            await self._set_password(connection, locked, password_hash, origin)
            refresh = await self._sign_ins.begin(connection, locked, origin)
        await self._attempts.logged_in(user.email, origin.address)
        return await self._sign_ins.answer(locked, refresh)

    async def forgot_password(self, email: str, origin: Origin) -> None:
        """Where the address has an account, it gets a letter; who asks is not told.

        Raises:
            InvalidRequest, RateLimited, Unavailable
        """
        address = checked_email(email)
        await self._attempts.ask(origin.address)
        may_write = await self._attempts.may_send_letter(address)
        now = self._clock()
        async with self._database.transaction() as connection:
            user = await users.by_email(connection, address)
            known = user is not None and _may_log_in(user)
            token = await self._one_time.make(
                connection,
                Purpose.RESET,
                user.tenant if known and user is not None else "",
                now,
                user_id=user.id if known and user is not None else None,
            )
        if known and may_write:
            self._letters.post(Letter(LetterKind.RESET, address, token, now + LIFE_S[Purpose.RESET]))

    async def reset_password(self, token: str, password: str, origin: Origin) -> None:
        """Every session ends.

        Raises:
            InvalidRequest, WeakPassword, RateLimited, Overloaded, Unavailable
        """
        check_password(password)
        await self._attempts.ask(origin.address)
        password_hash = await self._passwords.hashed(password)
        async with self._database.transaction() as connection:
            used = await self._one_time.use(connection, token, Purpose.RESET, self._clock())
            user = None if used.user_id is None else await users.lock(connection, used.user_id)
            if user is None or not _may_log_in(user):
                raise InvalidRequest("this token is good for nothing, or not any more", field="token")
            check_password(password, user.email, user.name)
            await self._set_password(connection, user, password_hash, origin)

    async def find(self, email: str) -> User:
        """For who runs the server, in whatever tenant.

        Raises:
            NotFound, Unavailable
        """
        async with self._database.reading() as connection:
            user = await users.by_email(connection, checked_email(email))
        if user is None:
            raise NotFound("nobody has this address")
        return user

    async def set_password(self, email: str, password: str) -> User:
        """For who runs the server. Every session ends.

        Raises:
            NotFound, WeakPassword, Overloaded, Unavailable
        """
        check_password(password, email)
        password_hash = await self._passwords.hashed(password)
        async with self._database.transaction() as connection:
            user = await users.by_email(connection, checked_email(email))
            if user is None:
                raise NotFound("nobody has this address")
            await self._set_password(connection, user, password_hash, None)
        return user

    async def _set_password(
        self, connection: AsyncConnection, user: User, password_hash: str, origin: Origin | None
    ) -> None:
        now = self._clock()
        await users.set_password(connection, user.id, password_hash)
        await one_time_tokens.void(connection, user.id, Purpose.RESET)
        await sessions.end_all(connection, user.id, now)
        await self._tell(connection, user, "user.password_changed", origin)

    async def _settle(
        self, connection: AsyncConnection, registered: OneTimeToken, origin: Origin | None
    ) -> User:
        now, data = self._clock(), registered.data
        tenant = Tenant(
            id=new_id("tn", now),
            name=data["organisation"] or data["name"] or data["email"],
            tier=self._tier,
            created_at=now,
        )
        made = new_user(
            tenant.id,
            data["email"],
            Role.OWNER,
            now,
            name=data["name"],
            password_hash=data["password_hash"],
        )
        await tenants.add(connection, tenant)
        await _add(connection, made)
        await self._tell(connection, made, "user.registered", origin)
        return made

    async def _myself(self, connection: AsyncConnection, caller: Caller) -> User:
        user = None
        if caller.user_id is not None and caller.key_id is None:
            user = await users.get(connection, caller.tenant, caller.user_id)
        if user is None:
            raise PermissionDenied("this is for people who have logged in")
        return user

    async def _tell(
        self, connection: AsyncConnection, user: User, action: str, origin: Origin | None
    ) -> None:
        """For the audit log. origin: None: who runs the server did it."""
        who = trusted(user.tenant) if origin is None else as_caller(user, origin)
        await record(connection, who, action, user.id, at=self._clock())


def _is_email(text: str) -> bool:
    return text.isprintable() and _EMAIL.fullmatch(text) is not None


def checked_email(text: str) -> str:
    """In lower case.

    Raises:
        InvalidRequest
    """
    email = text.strip().lower()
    if not _is_email(email):
        raise InvalidRequest("this is no e-mail address", field="email")
    return email


def checked_name(text: str | None, field: str = "name") -> str | None:
    """None where it is empty.

    Raises:
        InvalidRequest
    """
    name = (text or "").strip()
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise InvalidRequest(f"should be at most {_LONGEST_NAME} printable characters", field=field)
    return name or None


def new_user(
    tenant: str,
    email: str,
    role: Role,
    now: float,
    *,
    name: str | None = None,
    password_hash: str | None = None,
) -> User:
    """Somebody whose address is known to be theirs."""
    return User(
        id=new_id("us", now),
        tenant=tenant,
        email=email,
        name=name,
        role=role.value,
        password_hash=password_hash,
        verified_at=now,
        disabled_at=None,
        created_at=now,
        last_login_at=None,
    )


def _may_log_in(user: User) -> bool:
    return user.disabled_at is None and user.verified_at is not None and user.role != Role.SERVICE


async def _add(connection: AsyncConnection, user: User) -> None:
    """
    Raises:
        Conflict: the address got an account meanwhile.
    """
    if not await users.add(connection, user):
        raise Conflict("this address has an account already: log in")
