"""Lets a request pass that carries the server's key; the health paths are open to everyone.

A WebSocket without it is refused before the handshake, in the words of its surface.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from voiceforge.api.http.errors import ErrorReplies
from voiceforge.errors import Unauthenticated
from voiceforge.services.access import OWNER, Caller

OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready"})
_SCHEMES = ("bearer", "token")
"""Deepgram's clients say Token; schemes are written in any case."""


_CALLER = "voiceforge.caller"


class Connection(Protocol):
    """A request or a socket."""

    @property
    def scope(self) -> Scope: ...


def caller_of(connection: Connection) -> Caller:
    """Who made a request, or opened a socket."""
    caller: Caller = connection.scope[_CALLER]
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


def _nobody(key: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class SurfaceKeys:
    """What keys one surface knows besides.

    covers: whether a path is its own.
    in_subprotocols: the keys among the subprotocols that a WebSocket offers: a browser sends no headers.
    admits: whether a key is one that the surface gave out itself, for a while.
    """

    covers: Callable[[str], bool]
    in_subprotocols: Callable[[Sequence[str]], Sequence[str]] = _no_keys
    admits: Callable[[str], bool] = _nobody


class ApiKey:
    """key: None: whoever reaches the server may use it."""

    def __init__(
        self, app: ASGIApp, key: str | None, replies: ErrorReplies, surfaces: Sequence[SurfaceKeys] = ()
    ) -> None:
        self._app = app
        self._key = None if key is None else key.encode()
        self._replies = replies
        self._surfaces = tuple(surfaces)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN_PATHS):
            await self._app(scope, receive, send)
            return
        if self._key is None:
            scope[_CALLER] = OWNER
            await self._app(scope, receive, send)
            return
        offered = offered_keys(Headers(scope=scope))
        surfaces = [surface for surface in self._surfaces if surface.covers(scope["path"])]
        for surface in surfaces:
            offered += surface.in_subprotocols(scope.get("subprotocols", ()))
        if any(self._is_ours(key) or any(s.admits(key) for s in surfaces) for key in offered):
            scope[_CALLER] = OWNER
            await self._app(scope, receive, send)
            return
        message = (
            "the API key is not valid" if offered else "an API key is needed: Authorization: Bearer <key>"
        )
        await self._replies.reply(scope, Unauthenticated(message))(scope, receive, send)

    def _is_ours(self, key: str) -> bool:
        return hmac.compare_digest(key.encode("latin-1", "replace"), self._key or b"")
