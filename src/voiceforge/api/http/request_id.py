"""Gives every request an id: the caller's `X-Request-ID` where it is sound, else a new one.

It stands in the scope, in every log line of the request and in the reply.
"""

from __future__ import annotations

import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voiceforge.api.http.asgi import STARTED
from voiceforge.telemetry.logs import log_context

HEADER = "X-Request-ID"
_SOUND = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")


def request_id_of(scope: Scope) -> str:
    """The id that `RequestIds` gave; empty outside of it."""
    return str(scope.get("voiceforge.request_id", ""))


class RequestIds:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _SOUND.fullmatch(given) else uuid.uuid4().hex
        scope["voiceforge.request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] in STARTED:
                message.setdefault("headers", [])
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with log_context(request_id=request_id):
            await self._app(scope, receive, send_with_id)
