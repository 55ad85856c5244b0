"""Lets a request pass that carries the server's key; the health paths are open to everyone."""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from voiceforge.api.http.errors import ErrorReplies
from voiceforge.errors import Unauthenticated

OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready"})


def offered_keys(headers: Headers) -> list[str]:
    """Every key the request carries: `Authorization: Bearer`, Azure's `api-key`, and `X-API-Key`."""
    keys = [value for name in ("api-key", "x-api-key") for value in headers.getlist(name)]
    for value in headers.getlist("authorization"):
        scheme, _, key = value.partition(" ")
        if scheme.lower() == "bearer":
            keys.append(key.strip())
    return [key for key in keys if key]


class ApiKey:
    def __init__(self, app: ASGIApp, key: str, replies: ErrorReplies) -> None:
        self._app = app
        self._key = key.encode()
        self._replies = replies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN_PATHS):
            await self._app(scope, receive, send)
            return
        offered = offered_keys(Headers(scope=scope))
        if any(hmac.compare_digest(key.encode("latin-1", "replace"), self._key) for key in offered):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            message = (
                "the API key is not valid" if offered else "an API key is needed: Authorization: Bearer <key>"
            )
            await self._replies.reply(scope, Unauthenticated(message))(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})  # before the handshake: HTTP 403
