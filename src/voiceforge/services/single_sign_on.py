"""Single sign-on: people whom a provider knows come in as people of ours.

Between leaving for the provider and coming back nothing is kept here: what has to be known again is sealed
into a cookie of the browser that left, so that only that browser can come back.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from voiceforge.errors import MalformedCredential, PermissionDenied, RevokedCredential
from voiceforge.infra.credentials.sealing import BrokenSeal, Seal
from voiceforge.infra.db import identities, tenants, users
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.records_people import User
from voiceforge.services.access import Role
from voiceforge.services.accounts import checked_email, new_user
from voiceforge.services.attempts import Attempts
from voiceforge.services.audit import record
from voiceforge.services.sign_ins import Origin, SignIns, Tokens, as_caller
from voiceforge.telemetry.logger import Logger

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_log = Logger(__name__)

AWAY_S = 600.0
"""So long may somebody take at the provider."""
_ABOUT = "single sign-on"
_LONGEST_NAME = 200
_LONGEST_ID = 255


class Provider(Protocol):
    """See `infra.sso.oidc`."""

    async def address(self, state: str, nonce: str, verifier: str) -> str: ...
    async def claims(self, code: str, nonce: str, verifier: str) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What claims mean here. Claims may be lists; the first value that a table knows counts.

    create: False: only those come in whose address has an account.
    """

    tenant: str
    role: Role
    tenant_claim: str | None = None
    tenants: Mapping[str, str] = field(default_factory=dict)
    role_claim: str | None = None
    roles: Mapping[str, Role] = field(default_factory=dict)
    create: bool = True

    def tenant_of(self, claims: Mapping[str, Any]) -> str:
        return _first(claims, self.tenant_claim, self.tenants) or self.tenant

    def role_of(self, claims: Mapping[str, Any]) -> Role:
        return _first(claims, self.role_claim, self.roles) or self.role


@dataclass(frozen=True, slots=True)
class Departure:
    """Where the browser goes, and the cookie that it keeps meanwhile."""

    address: str
    cookie: str = field(repr=False)


class SingleSignOn:
    """Args:
    issuer: of the provider.
    seal: of cookies.
    clock: Unix seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        sign_ins: SignIns,
        attempts: Attempts,
        provider: Provider,
        issuer: str,
        rules: ClaimRules,
        seal: Seal,
        secure: bool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._sign_ins = sign_ins
        self._attempts = attempts
        self._provider = provider
        self._issuer = issuer
        self._rules = rules
        self._seal = seal
        self.secure = secure
        """Cookies are sent over TLS only."""
        self._clock = clock

    async def leave(self, origin: Origin) -> Departure:
        """
        Raises:
            RateLimited, UpstreamFailed
        """
        await self._attempts.ask(origin.address)
        state, nonce = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        verifier = secrets.token_urlsafe(48)
        kept = {
            "state": state,
            "nonce": nonce,
            "verifier": verifier,
            "until": self._clock() + AWAY_S,
        }
        sealed = self._seal.close(json.dumps(kept).encode(), _ABOUT)
        cookie = base64.urlsafe_b64encode(sealed).decode().rstrip("=")
        return Departure(await self._provider.address(state, nonce, verifier), cookie)

    async def come_back(self, cookie: str | None, state: str, code: str, origin: Origin) -> Tokens:
        """
        Args:
            cookie: what the browser kept. state, code: what the provider sent it back with.

        Raises:
            MalformedCredential: another browser left, or too long ago; or the provider's word is broken.
            Unauthenticated: the provider does not take the code.
            PermissionDenied: they have no account, and get none.
            RevokedCredential: their account is disabled.
            RateLimited, UpstreamFailed, Unavailable
        """
        await self._attempts.ask(origin.address)
        kept = self._opened(cookie)
        if not hmac.compare_digest(str(kept["state"]).encode(), state.encode("utf-8", "replace")):
            raise MalformedCredential("the log-in was begun in another window: begin again")
        claims = await self._provider.claims(code, str(kept["nonce"]), str(kept["verifier"]))
        async with self._database.transaction() as connection:
            user = await self._recognised(connection, claims)
            refresh = await self._sign_ins.begin(connection, user, origin)
            await record(connection, as_caller(user, origin), "user.logged_in", user.id, by="single sign-on")
        return await self._sign_ins.answer(user, refresh)

    def _opened(self, cookie: str | None) -> Mapping[str, Any]:
        try:
            sealed = base64.urlsafe_b64decode((cookie or "") + "==")
            kept: dict[str, Any] = json.loads(self._seal.open(sealed, _ABOUT))
        except (binascii.Error, BrokenSeal, ValueError):
            raise MalformedCredential("the log-in was not begun in this browser: begin again") from None
        if kept["until"] <= self._clock():
            raise MalformedCredential("the log-in took too long: begin again")
        return kept

    async def _recognised(self, connection: AsyncConnection, claims: Mapping[str, Any]) -> User:
        subject, now = str(claims["sub"])[:_LONGEST_ID], self._clock()
        known = await identities.user_id(connection, self._issuer, subject)
        user = None if known is None else await users.lock(connection, known)
        if user is None:
            user = await self._by_address(connection, claims, now)
            await identities.add(connection, self._issuer, subject, user, now)
        if user.disabled_at is not None or user.role == Role.SERVICE:
            raise RevokedCredential("this account is disabled")
        role = self._rules.role_of(claims)
        # Where the provider has a say in roles, it has it each time; owners are made and unmade here.
        if self._rules.role_claim is not None and user.role not in (role, Role.OWNER):
            await users.set_role(connection, user.id, role.value)
            user = replace(user, role=role.value)
        return user

    async def _by_address(self, connection: AsyncConnection, claims: Mapping[str, Any], now: float) -> User:
        """Whoever has the address that the provider vouches for; made where nobody has it."""
        if claims.get("email_verified") is not True or not isinstance(claims.get("email"), str):
            raise PermissionDenied("the provider does not vouch for an e-mail address of yours")
        email = checked_email(claims["email"])
        found = await users.by_email(connection, email)
        if found is not None:
            return found
        tenant = await tenants.get(connection, self._rules.tenant_of(claims))
        if not self._rules.create or tenant is None or tenant.disabled_at is not None:
            _log.info("sso_no_account", create=self._rules.create)
            raise PermissionDenied("there is no account for you here: ask who runs this server")
        name = claims.get("name")
        shown = name[:_LONGEST_NAME] if isinstance(name, str) and name.isprintable() else None
        made = new_user(tenant.id, email, self._rules.role_of(claims), now, name=shown)
        if not await users.add(connection, made):
            raise PermissionDenied("this address got an account at the same time: begin again")
        return made


def _first(claims: Mapping[str, Any], name: str | None, table: Mapping[str, Any]) -> Any:
    value = None if name is None else claims.get(name)
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str) and one in table:
            return table[one]
    return None
