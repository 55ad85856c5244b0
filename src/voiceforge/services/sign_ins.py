"""Sessions: what somebody gets who has logged in, and how it goes on.

A session has one refresh token that is good, and each use of it gives the next. The tokens of a session are
made of its number and a count, so that an old one is known for what it is:

    good now                                  the next one, and a new access token
    the one before, for `RETRY_S` more        the same next one again: an answer was lost, or two came at once
    any older                                 somebody has a copy: the session ends, for both
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from voiceforge.errors import ExpiredCredential, MalformedCredential, RevokedCredential
from voiceforge.infra.db import sessions, tenants, users
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.records_people import Session, User
from voiceforge.services.access import Caller, Role
from voiceforge.services.access_tokens import AccessTokens
from voiceforge.services.audit import record
from voiceforge.telemetry.logger import Logger

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_log = Logger(__name__)

RETRY_S = 10.0
_PREFIX = "vfr_"
_TOKEN = re.compile(r"vfr_([0-9a-f]{32})_([0-9]{1,9})_([A-Za-z0-9_-]{43})")
_SESSION = "se"
_LONGEST_AGENT = 255


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from, as far as that is known."""

    address: str | None = None
    agent: str | None = None
    request_id: str | None = None


NOWHERE = Origin()


@dataclass(frozen=True, slots=True)
class Tokens:
    """access: sent with every request, good for `expires_in_s`. refresh: buys the next two, once."""

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    expires_in_s: int
    user: User


def as_caller(user: User, origin: Origin) -> Caller:
    """Who comes in with a password or by another's word, for the audit log."""
    return Caller(
        user.tenant,
        Role(user.role),
        frozenset(),
        user_id=user.id,
        address=origin.address,
        request_id=origin.request_id,
    )


class SignIns:
    """Args:
    secret: 32 bytes that refresh tokens are made with.
    life_s: of a session, however often it is refreshed.
    clock: Unix seconds.
    """

    def __init__(
        self,
        database: Database,
        tokens: AccessTokens,
        secret: bytes,
        *,
        life_s: float = 30 * 86_400.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._secret = secret
        self._life_s = life_s
        self._clock = clock

    async def begin(self, connection: AsyncConnection, user: User, origin: Origin) -> str:
        """The refresh token of a new session; `answer` makes the rest once this is committed.

        Raises:
            RevokedCredential: the tenant is disabled.
        """
        await _check_tenant(connection, user)
        now = self._clock()
        session_id = new_id(_SESSION, now)
        refresh = self._token(session_id, 0)
        made = Session(
            id=session_id,
            tenant=user.tenant,
            user_id=user.id,
            refresh_hash=self._hash(refresh),
            created_at=now,
            refreshed_at=now,
            expires_at=now + self._life_s,
            address=origin.address,
            agent=None if origin.agent is None else origin.agent[:_LONGEST_AGENT],
        )
        await sessions.add(connection, made)
        await users.note_login(connection, user.id, now)
        return refresh

    async def answer(self, user: User, refresh: str) -> Tokens:
        """
        Raises:
            Unavailable
        """
        session_id, _ = self._parsed(refresh)
        access = await self._tokens.issue(user.id, session_id)
        return Tokens(access, refresh, int(self._tokens.life_s), user)

    async def refresh(self, token: str, origin: Origin = NOWHERE) -> Tokens:
        """
        Raises:
            MalformedCredential: it is none of ours.
            ExpiredCredential: the session has run out.
            RevokedCredential: it has ended, or does so now because the token was used before.
            Unavailable
        """
        session_id, count = self._parsed(token)
        async with self._database.transaction() as connection:
            session = await sessions.lock(connection, session_id)
            user = None if session is None else await users.with_id(connection, session.user_id)
            now = self._clock()
            if session is None or user is None or session.revoked_at is not None:
                raise RevokedCredential("the session has ended")
            if session.expires_at <= now:
                raise ExpiredCredential("the session has run out")
            if user.disabled_at is not None:
                raise RevokedCredential("this account is disabled")
            await _check_tenant(connection, user)
            following = self._token(session_id, count + 1)
            if hmac.compare_digest(session.refresh_hash, self._hash(token)):
                await sessions.renew(connection, session_id, self._hash(following), now)
                stolen = False
            else:
                repeated = hmac.compare_digest(session.refresh_hash, self._hash(following))
                stolen = not (repeated and now - session.refreshed_at <= RETRY_S)
            if stolen:
                await sessions.end(connection, session_id, now)
                await record(connection, as_caller(user, origin), "session.reused_token", session_id, at=now)
        if stolen:
            _log.warning("refresh_token_reused", session=session_id, user=user.id)
            raise RevokedCredential("this refresh token was used before: the session has ended")
        return await self.answer(user, following)

    async def end(self, token: str) -> None:
        """Of the session that a refresh token is of, whether that one is good now or was before.

        Raises:
            MalformedCredential, Unavailable
        """
        session_id, _ = self._parsed(token)
        async with self._database.transaction() as connection:
            await sessions.end(connection, session_id, self._clock())

    def _token(self, session_id: str, count: int) -> str:
        number = session_id.removeprefix(f"{_SESSION}_")
        made = hmac.digest(self._secret, f"refresh {number} {count}".encode(), hashlib.sha256)
        return f"{_PREFIX}{number}_{count}_{base64.urlsafe_b64encode(made).decode().rstrip('=')}"

    def _parsed(self, token: str) -> tuple[str, int]:
        """The session and the count of a token that we made.

        Raises:
            MalformedCredential
        """
        parts = _TOKEN.fullmatch(token)
        if parts is not None:
            session_id, count = f"{_SESSION}_{parts[1]}", int(parts[2])
            if hmac.compare_digest(self._token(session_id, count), token):
                return session_id, count
        raise MalformedCredential("this is no refresh token of ours")

    def _hash(self, token: str) -> str:
        return hmac.new(self._secret, b"stored " + token.encode(), hashlib.sha256).hexdigest()


async def _check_tenant(connection: AsyncConnection, user: User) -> None:
    tenant = await tenants.get(connection, user.tenant)
    if tenant is None or tenant.disabled_at is not None:
        raise RevokedCredential("this organisation is disabled")
