"""`dg-request-id`, which Deepgram's clients show to people, on every answer of this door."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voiceforge.api.deepgram_compat.errors import PATH
from voiceforge.api.http.asgi import STARTED
from voiceforge.api.http.request_id import request_id_of


class ListenFrame:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") != PATH:
            await self._app(scope, receive, send)
            return

        async def send_with_id(message: Message) -> None:
            if message["type"] in STARTED:
                MutableHeaders(scope=message)["dg-request-id"] = request_id_of(scope)
            await send(message)

        await self._app(scope, receive, send_with_id)
