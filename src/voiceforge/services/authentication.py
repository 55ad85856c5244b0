"""From what somebody offers to who they are, the same at every door.

Keys, tokens of people and short-lived tokens are told apart by their looks. Who was found in the database is
believed for less than a second, so that what is revoked is refused everywhere within one. Where many come
with the same credential at once, the database is asked once.

Where neither a key is configured nor anybody required to be known, whoever comes with nothing of ours owns
the machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from voiceforge.errors import (
    MalformedCredential,
    RevokedCredential,
    Unauthenticated,
    VoiceForgeError,
    WrongAddress,
    WrongAudience,
)
from voiceforge.services import key_text
from voiceforge.services.access import DEFAULT_TENANT, OWNER, Caller, Role, Scope
from voiceforge.services.failed_tries import FailedTries
from voiceforge.services.short_tokens import PREFIXES, REALTIME, ParentKind, ShortToken, ShortTokens
from voiceforge.telemetry.logger import Logger

if TYPE_CHECKING:  # it brings the database with it
    from voiceforge.services.key_holders import KeyHolders

MOST_FAILURES = 30
_FRESH_S = 0.8
_LOOK_AGAIN_S = 0.2
_REMEMBERED_S = 600.0
"""Whoever was let in lately is looked up again, whatever others from the same address try."""
_MOST_REMEMBERED = 20_000
_MOST_CHARS = 16 * 1024

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

OnRefused = Callable[[str | None, str], None]

_log = Logger(__name__)


class AccessTokens(Protocol):
    """Those that people are given when they log in."""

    async def caller(self, token: str) -> Caller | None:
        """Whose it is; its `until` says when the token ends. None: it is none of ours, whatever it is.

        Raises:
            Unauthenticated: it is ours, or pretends to be, and lets nobody in; the class says why.
            Unavailable
        """
        ...


@dataclass(frozen=True, slots=True)
class Offer:
    """What somebody brings.

    credentials: in whatever way they came. address: of the client; None: unknown. realtime: they stand at the
    door where OpenAI's client secrets are taken. request_id: of what they come with.
    """

    credentials: Sequence[str] = ()
    address: str | None = None
    realtime: bool = False
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """Somebody, and the networks they may come from; None: all."""

    caller: Caller
    networks: tuple[Network, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    """Times are of the monotonic clock."""

    known: Known
    fresh_until: float
    forgotten_at: float


class Authentication:
    """Belongs to one event loop.

    Args:
        configured_key: the one in the configuration; None: there is none.
        required: whoever comes must be known, also where no key is configured.
        holders: of keys; None: this process has no database, and knows no key but the configured one.
        access_tokens: of people; None: there are none.
        short_tokens: None: signed under the configured key.
        on_refused: told the address and the code of who came with something that lets nobody in.
    failures_per_minute: of one address, before it is asked to wait; 0: however many.
        clock: Unix seconds. monotonic: seconds that never go back.
    """

    def __init__(
        self,
        configured_key: str | None = None,
        *,
        required: bool = False,
        holders: KeyHolders | None = None,
        access_tokens: AccessTokens | None = None,
        short_tokens: ShortTokens | None = None,
        failures_per_minute: int = MOST_FAILURES,
        on_refused: OnRefused = lambda address, code: None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._configured = None if configured_key is None else configured_key.encode()
        self._open = configured_key is None and not required
        self._holders = holders
        self._access_tokens = access_tokens
        self.short_tokens = short_tokens or ShortTokens(
            hashlib.sha256(b"voiceforge short tokens\0" + (configured_key or "").encode()).digest(),
            configured_key,
            clock,
        )
        self._tries = FailedTries(failures_per_minute, monotonic)
        self._on_refused = on_refused
        self._clock = clock
        self._monotonic = monotonic
        self._salt = secrets.token_bytes(16)
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[_Entry | None]] = {}

    @property
    def is_open(self) -> bool:
        """Whoever reaches the server may use it."""
        return self._open

    async def caller(self, offer: Offer) -> Caller:
        """Who it is, by the first credential that lets somebody in.

        Raises:
            Unauthenticated: nobody; its class says why.
            Overloaded: too many that were wrong came from there lately.
            Unavailable: the database does not answer.
        """
        try:
            found = await self._found(offer)
        except Unauthenticated as error:
            _log.info("refused", code=error.code, address=offer.address)
            if offer.credentials:
                self._tries.add(offer.address)
                self._on_refused(offer.address, error.code)
            raise
        return replace(found, address=offer.address, request_id=offer.request_id)

    async def of_tenant(self, tenant: str, address: str | None) -> Caller:
        """Some program of a tenant, where a protocol knows no credentials: it may transcribe.

        Raises:
            Unauthenticated, RevokedCredential: there is no such tenant, or not any more.
            Unavailable
        """
        caller = Caller(tenant, Role.SERVICE, frozenset({Scope.TRANSCRIBE}))
        # The machine's own works on while its database is away.
        if tenant != DEFAULT_TENANT and self._holders is not None:
            caller = replace(caller, tier=await self._holders.tier_of_tenant(tenant))
        return replace(caller, address=address)

    def can_be_shut_out(self, caller: Caller) -> bool:
        """While a connection of theirs is open."""
        return self._holders is not None and (caller.key_id or caller.user_id) is not None

    async def shut_out(self, caller: Caller) -> Unauthenticated:
        """Returns why, once what they came with, or what that was made with, lets nobody in any more. A token
        that has only expired is no reason: what was begun with it may go on."""
        assert self._holders is not None
        holders, by_key = self._holders, caller.key_id is not None
        whose = caller.key_id or caller.user_id or ""

        async def look(_: str) -> Known:
            return await (holders.of_key_id(whose) if by_key else holders.of_user(whose))

        while True:
            await asyncio.sleep(_LOOK_AGAIN_S)
            try:
                # With a space in it, it can be nobody's credential.
                await self._looked_up(f"holder {whose}", caller.address, look)
            except Unauthenticated as error:
                _log.info("shut_out", code=error.code, address=caller.address)
                return error
            except VoiceForgeError:
                continue  # the database is away: what was begun goes on

    async def close(self) -> None:
        """What was to be noted of the use of keys is noted."""
        if self._holders is not None:
            await self._holders.close()

    async def _found(self, offer: Offer) -> Caller:
        if self._configured is not None and any(map(self._is_configured, offer.credentials)):
            return OWNER
        why: Unauthenticated | None = None
        for credential in offer.credentials:
            try:
                known = await self._by(credential, offer)
            except Unauthenticated as error:
                why = why or error
            else:
                if known is not None:
                    return known.caller
        if why is not None:
            raise why
        if self._open:
            return OWNER
        if not offer.credentials:
            raise Unauthenticated("an API key is needed: Authorization: Bearer <key>")
        self._tries.check(offer.address)
        raise Unauthenticated("the API key is not valid")

    def _is_configured(self, credential: str) -> bool:
        return hmac.compare_digest(credential.encode("latin-1", "replace"), self._configured or b"")

    async def _by(self, credential: str, offer: Offer) -> Known | None:
        """None: it is nothing of ours."""
        look = self._way_to_look(credential, offer)
        if look is None:
            return None
        known = await self._looked_up(credential, offer.address, look)
        if known is not None and known.networks is not None and not _is_in(offer.address, known.networks):
            raise WrongAddress("the API key may not be used from your address")
        return known

    def _way_to_look(self, credential: str, offer: Offer) -> Callable[[str], Awaitable[Known | None]] | None:
        if len(credential) > _MOST_CHARS:
            raise MalformedCredential("the credential is too long to be one")
        if credential.startswith(key_text.PREFIX):
            if not key_text.is_whole(credential):
                raise MalformedCredential("the API key is malformed: a character is wrong or missing")
            return self._by_key
        if credential.startswith(REALTIME) and not offer.realtime:
            if self.short_tokens.realtime_session(credential) is None:
                return None
            raise WrongAudience("a client secret is for realtime sessions, and nothing else")
        if credential.startswith(PREFIXES):
            return self._by_short_token
        if self._access_tokens is not None and credential.count(".") == 2:
            return self._access_tokens_known
        return None

    async def _looked_up(
        self, credential: str, address: str | None, look: Callable[[str], Awaitable[Known | None]]
    ) -> Known | None:
        name = hashlib.blake2b(credential.encode("utf-8", "replace"), digest_size=16, key=self._salt).digest()
        entry, now = self._entries.get(name), self._monotonic()
        if entry is not None and now < entry.fresh_until:
            return entry.known
        if entry is None or now >= entry.forgotten_at:
            self._tries.check(address)
        task = self._asking.get(name)
        if task is None:
            task = self._asking[name] = asyncio.create_task(self._ask(name, look(credential), now))
        # Whoever asked first may leave; the others want the answer.
        entry = await asyncio.shield(task)
        return None if entry is None else entry.known

    async def _ask(self, name: bytes, looking: Awaitable[Known | None], now: float) -> _Entry | None:
        """now: before the look, so that what is revoked during it is not believed for longer."""
        try:
            known = await looking
        except Unauthenticated:
            self._entries.pop(name, None)
            raise
        finally:
            del self._asking[name]
        self._entries.pop(name, None)
        if known is None:
            return None
        until = known.caller.until
        left_s = _FRESH_S if until is None else min(_FRESH_S, until - self._clock())
        entry = self._entries[name] = _Entry(known, now + left_s, now + _REMEMBERED_S)
        if len(self._entries) > _MOST_REMEMBERED:
            self._entries.popitem(last=False)
        return entry

    async def _by_key(self, credential: str) -> Known:
        if self._holders is None:
            raise Unauthenticated("the API key is not valid")
        return await self._holders.of_key(credential)

    async def _access_tokens_known(self, credential: str) -> Known | None:
        assert self._access_tokens is not None
        caller = await self._access_tokens.caller(credential)
        return None if caller is None else Known(caller)

    async def _by_short_token(self, credential: str) -> Known | None:
        try:
            token = self.short_tokens.opened(credential)
        except MalformedCredential:
            if credential.startswith(REALTIME):  # OpenAI's own begin like that
                return None
            raise
        parent = await self._parent(token)
        ends = [at for at in (token.expires_at, parent.until) if at is not None]
        # Where it may be used from was asked when it was made: it is for others, elsewhere.
        return Known(replace(parent, scopes=parent.scopes & token.scopes, until=min(ends)))

    async def _parent(self, token: ShortToken) -> Caller:
        if token.kind is ParentKind.OWNER:
            needs_none = self._configured is not None or self._open
            if needs_none and hmac.compare_digest(token.parent, self.short_tokens.owner):
                return OWNER
        elif self._holders is not None:
            look = self._holders.of_key_id if token.kind is ParentKind.KEY else self._holders.of_user
            return (await look(token.parent)).caller
        raise RevokedCredential("what the token was made with is not valid any more")


def _is_in(address: str | None, networks: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return any((mapped or parsed) in network for network in networks)
