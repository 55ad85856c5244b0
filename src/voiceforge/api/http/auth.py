"""Finds out who makes a request or opens a socket, before anything else is done for them.

Credentials come in headers, among the subprotocols of a WebSocket, or in the query; there only tokens that
soon end, since queries are written into logs. The health paths are open to everyone. A WebSocket is refused
before the handshake, in the words of its surface.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote_plus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from voiceforge.api.http.errors import ErrorReplies
from voiceforge.api.http.request_id import request_id_of
from voiceforge.api.http.shutting_out import until_shut_out
from voiceforge.errors import MalformedCredential, VoiceForgeError
from voiceforge.services.access import Caller
from voiceforge.services.authentication import Authentication, Offer
from voiceforge.services.key_text import PREFIX as KEY_PREFIX
from voiceforge.services.short_tokens import PREFIXES as TOKEN_PREFIXES

OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready"})
_SCHEMES = ("bearer", "token")
"""Deepgram's clients say Token; schemes are written in any case."""
_IN_QUERY = (b"token=", b"access_token=")
CALLER = "voiceforge.caller"
"""Where it stands in the scope, for middleware; others ask `caller_of`."""


class Connection(Protocol):
    """A request or a socket."""

    @property
    def scope(self) -> Scope: ...


def caller_of(connection: Connection) -> Caller:
    """Who made a request, or opened a socket."""
    caller: Caller = connection.scope[CALLER]
    return caller


def offered_keys(headers: Headers) -> list[str]:
    """Every key the request carries: `Authorization: Bearer` or `Token`, Azure's `api-key`, `X-API-Key`."""
    keys = [value for name in ("api-key", "x-api-key") for value in headers.getlist(name)]
    for value in headers.getlist("authorization"):
        scheme, _, key = value.partition(" ")
        if scheme.lower() in _SCHEMES:
            keys.append(key.strip())
    return [key for key in keys if key]


def _no_keys(subprotocols: Sequence[str]) -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class SurfaceKeys:
    """What keys one surface knows besides.

    covers: whether a path is its own.
    in_subprotocols: the keys among the subprotocols that a WebSocket offers: a browser sends no headers.
    realtime: OpenAI's client secrets are taken there.
    """

    covers: Callable[[str], bool]
    in_subprotocols: Callable[[Sequence[str]], Sequence[str]] = _no_keys
    realtime: bool = False


class Authenticate:
    """open_paths: whoever comes there is not asked."""

    def __init__(
        self,
        app: ASGIApp,
        authentication: Authentication,
        replies: ErrorReplies,
        surfaces: Sequence[SurfaceKeys] = (),
        open_paths: frozenset[str] = OPEN_PATHS,
    ) -> None:
        self._app = app
        self._authentication = authentication
        self._replies = replies
        self._surfaces = tuple(surfaces)
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in self._open_paths):
            await self._app(scope, receive, send)
            return
        known = self._authentication
        try:
            caller = scope[CALLER] = await known.caller(self._offer(scope))
        except VoiceForgeError as error:
            await self._replies.reply(scope, error)(scope, receive, send)
            return
        if scope["type"] == "websocket" and known.can_be_shut_out(caller):
            await until_shut_out(self._app, scope, receive, send, lambda: known.shut_out(caller))
        else:
            await self._app(scope, receive, send)

    def _offer(self, scope: Scope) -> Offer:
        """What is found in the query is taken out of it: what comes after shall neither read nor log it."""
        offered = offered_keys(Headers(scope=scope))
        realtime = False
        for surface in self._surfaces:
            if surface.covers(scope["path"]):
                offered += surface.in_subprotocols(scope.get("subprotocols", ()))
                realtime = realtime or surface.realtime
        if b"token=" in scope["query_string"]:
            offered += _taken_from_query(scope)
        client = scope.get("client")
        return Offer(offered, client[0] if client else None, realtime, request_id_of(scope) or None)


def _taken_from_query(scope: Scope) -> list[str]:
    """
    Raises:
        MalformedCredential: a key that lasts is written there.
    """
    found, kept = [], []
    for part in scope["query_string"].split(b"&"):
        value = unquote_plus(part.partition(b"=")[2].decode("latin-1"))
        if part.startswith(_IN_QUERY) and value.startswith((*TOKEN_PREFIXES, KEY_PREFIX)):
            found.append(value)
        else:
            kept.append(part)
    scope["query_string"] = b"&".join(kept)
    if any(value.startswith(KEY_PREFIX) for value in found):
        raise MalformedCredential("an API key does not belong into the address: send it in a header")
    return found
