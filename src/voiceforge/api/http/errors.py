"""Turns whatever goes wrong into the reply of the surface that was asked.

Each surface brings an `ErrorSurface`: which paths are its own, one table from `ErrorKind` to HTTP status,
and the body. Here is what they share: choosing the surface, the headers, and the boundary where an
exception nobody expected becomes a plain 500.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voiceforge.api.http.asgi import STARTED
from voiceforge.api.http.request_id import request_id_of
from voiceforge.errors import ErrorKind, InvalidRequest, NotFound, VoiceForgeError
from voiceforge.telemetry.logger import Logger

_COMES_BACK = frozenset({ErrorKind.OVERLOADED, ErrorKind.UNAVAILABLE})
_SOME_DAY = ErrorKind.QUOTA_EXCEEDED
_TOLD = "voiceforge.errors_told"
_BROKE = 1011  # RFC 6455
CLIENT_GONE_STATUS = 499  # nginx's number; only logs and metrics ever see it

log = Logger(__name__)


class ErrorSurface(Protocol):
    """How one surface words its errors."""

    @property
    def name(self) -> str: ...

    @property
    def statuses(self) -> Mapping[ErrorKind, int]:
        """The HTTP status of every kind."""
        ...

    def covers(self, path: str) -> bool: ...

    def body(self, error: VoiceForgeError, status: int, request_id: str) -> Mapping[str, object]:
        """The JSON document that tells the caller."""
        ...

    def headers(self, error: VoiceForgeError, status: int) -> Mapping[str, str]:
        """Headers only this surface's clients look for."""
        ...


class Unexpected(VoiceForgeError):
    """Stands in for an exception that is none of ours; tells the caller nothing about it."""


def unexpected() -> VoiceForgeError:
    return Unexpected(
        "something went wrong on our side; the server's log has the details under this request id"
    )


class ErrorReplies:
    """Picks the surface by path and makes its reply. The last surface takes what no other covers."""

    def __init__(self, surfaces: Sequence[ErrorSurface]) -> None:
        self._surfaces = tuple(surfaces)

    def surface_for(self, path: str) -> ErrorSurface:
        for surface in self._surfaces:
            if surface.covers(path):
                return surface
        return self._surfaces[-1]

    @staticmethod
    def tell(scope: Scope, error: VoiceForgeError) -> None:
        """Note an error as told to the caller, for metrics; `reply` does it by itself."""
        scope.setdefault(_TOLD, []).append(error)

    @staticmethod
    def told(scope: Scope) -> tuple[VoiceForgeError, ...]:
        return tuple(scope.get(_TOLD, ()))

    def reply(
        self,
        scope: Scope,
        error: VoiceForgeError,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """`status` only where HTTP itself has the say (405); otherwise the surface's table decides."""
        surface = self.surface_for(scope["path"])
        code = surface.statuses[error.kind] if status is None else status
        self.tell(scope, error)
        # ASCII only: a message may quote what the caller sent, and JSON can carry what UTF-8 cannot.
        return Response(
            json.dumps(surface.body(error, code, request_id_of(scope))),
            status_code=code,
            media_type="application/json",
            headers={**_shared_headers(error), **surface.headers(error, code), **(headers or {})},
        )


def _shared_headers(error: VoiceForgeError) -> dict[str, str]:
    if error.kind in _COMES_BACK:
        return {"Retry-After": str(max(1, math.ceil(error.retry_after_s or 1.0)))}
    if error.kind is _SOME_DAY and error.retry_after_s is not None:
        return {"Retry-After": str(math.ceil(error.retry_after_s))}
    if error.kind is ErrorKind.UNAUTHENTICATED:
        return {"WWW-Authenticate": "Bearer"}
    return {}


def install_handlers(app: FastAPI, replies: ErrorReplies) -> None:
    """The framework's errors, in the shape of the surface that was asked. `ErrorBoundary` answers ours."""

    async def frameworks(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.url.path
        if isinstance(error.__cause__, VoiceForgeError) and error.status_code == 400:
            return replies.reply(request.scope, error.__cause__)  # met while it read the body
        if error.status_code == 404:
            return replies.reply(request.scope, NotFound(f"there is nothing at {path}"))
        if error.status_code == 405:
            found = InvalidRequest(f"{request.method} is not possible on {path}")
        else:
            found = InvalidRequest(str(error.detail))
        return replies.reply(request.scope, found, status=error.status_code, headers=error.headers)

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        name = str(first["loc"][-1]) if first["loc"] else None
        return replies.reply(request.scope, InvalidRequest(f"{name}: {first['msg']}", field=name), status=422)

    app.add_exception_handler(HTTPException, frameworks)
    app.add_exception_handler(RequestValidationError, validation)


class ErrorBoundary:
    """Answers our own errors, and is the last catch for all others: those are logged with the request id and
    answered without details."""

    def __init__(self, app: ASGIApp, replies: ErrorReplies) -> None:
        self._app = app
        self._replies = replies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "websocket.close" and not started:
                # How the framework says that nothing is there; as it is, HTTP would say 403 without a word.
                started = True
                missing = NotFound(f"there is no WebSocket at {scope['path']}")
                await self._replies.reply(scope, missing)(scope, receive, send)
                return
            started = started or message["type"] in STARTED
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except ClientDisconnect:
            log.info("client_gone")
        except Exception as error:
            ours = error if isinstance(error, VoiceForgeError) else None
            if ours is None or started:
                log.exception("request_crashed")
            elif ours.kind is ErrorKind.INTERNAL:
                log.error("request_failed", code=ours.code, exc_info=ours)
            if started and scope["type"] == "websocket":
                with contextlib.suppress(OSError, RuntimeError):  # it is gone, or was told already
                    await send({"type": "websocket.close", "code": _BROKE, "reason": ""})
                return
            if started:
                raise  # the reply is half out: only cutting the connection tells the client
            await self._replies.reply(scope, ours or unexpected())(scope, receive, send)
