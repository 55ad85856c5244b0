"""Ends a connection decently when the reply is ready before the request has fully arrived.

Reading on would let anyone make us swallow gigabytes; just closing would reset the connection and take the
reply with it. So the reply goes out in full with `Connection: close`, and what is still coming is thrown
away for a short while, as nginx's lingering close does.
"""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voiceforge.api.http.bodies import Body, BodyLimits

# A rest this small is read at once, so that the connection can be kept.
_SMALL_REST_BYTES = 1024 * 1024
_SMALL_REST_S = 1.0
_LINGER_BYTES = 16 * 1024 * 1024
_LINGER_S = 2.0


class EarlyReply:
    def __init__(self, app: ASGIApp, limits: BodyLimits | None = None) -> None:
        self._app = app
        self._limits = limits or BodyLimits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = Body(scope, receive, self._limits)
        closing = False

        async def send_then_linger(message: Message) -> None:
            nonlocal closing
            if message["type"] == "http.response.start" and not body.complete:
                if _rest_is_small(body):
                    await body.discard(_SMALL_REST_BYTES, _SMALL_REST_S)
                closing = not body.complete
                if closing:
                    MutableHeaders(scope=message)["Connection"] = "close"
            if closing and message["type"] == "http.response.body" and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await body.discard(_LINGER_BYTES, _LINGER_S)
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self._app(scope, body.receive, send_then_linger)


def _rest_is_small(body: Body) -> bool:
    return body.declared is not None and body.declared - body.received <= _SMALL_REST_BYTES
