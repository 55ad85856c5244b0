"""One WebSocket, as every live surface uses it: refused in words before the handshake, and bounded after it.

    open_socket(app, path, serve)      serve(socket): accept, receive, send_text, close

What is said over it, and which codes it closes with, belong to each surface.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, QueryParams
from starlette.routing import Match, WebSocketRoute
from starlette.types import Receive, Scope, Send

from voiceforge.api.http.request_id import request_id_of
from voiceforge.errors import VoiceForgeError

# RFC 6455 and IANA's register.
NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
BAD_DATA = 1003
POLICY_VIOLATION = 1008
TOO_BIG = 1009
INTERNAL_ERROR = 1011
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013

_MOST_REASON_BYTES = 123
"""A control frame holds 125 bytes, two of them the code."""


class SocketGone(Exception):
    """The other side has left, or was given up because it does not read.

    code: with which it closed; 1006 where it said nothing.
    """

    def __init__(self, code: int = 1006) -> None:
        super().__init__(f"the client is gone ({code})")
        self.code = code

    @property
    def orderly(self) -> bool:
        """It said goodbye, and meant it."""
        return self.code in (NORMAL, GOING_AWAY)


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """send_s: a client that takes nothing for so long, while as much waits for it as the connection holds, is
    given up."""

    send_s: float = 10.0


class Socket:
    """One connection. `receive` belongs to one task; sending to any of the same event loop.

    headers, query: of the request that opened it. subprotocols: those the client offers, in its order.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: SocketLimits) -> None:
        self.scope = scope
        self.headers = Headers(scope=scope)
        self.query = QueryParams(scope["query_string"])
        self.subprotocols: Sequence[str] = tuple(scope.get("subprotocols", ()))
        self._receive = receive
        self._send = send
        self._limits = limits
        self._sending = asyncio.Lock()
        self._gone: SocketGone | None = None
        self.accepted = False
        self.closed = False

    @property
    def request_id(self) -> str:
        return request_id_of(self.scope)

    async def accept(self, subprotocol: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        """Finish the handshake. What is raised before is answered over HTTP, in the surface's own words.

        Raises:
            SocketGone
        """
        if (await self._receive())["type"] != "websocket.connect":
            raise self._leave(1006)
        extra = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        await self._put({"type": "websocket.accept", "subprotocol": subprotocol, "headers": extra})
        self.accepted = True

    async def receive(self) -> bytes | str:
        """The next message: bytes or text, as it was sent.

        Raises:
            SocketGone: there will be none.
        """
        if self._gone is not None:
            raise self._gone
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise self._leave(int(message.get("code") or 1005))
        data = message.get("bytes")
        return data if data is not None else str(message["text"])

    async def send_text(self, text: str) -> None:
        """Waits while the client reads too slowly.

        Raises:
            SocketGone
        """
        await self._put({"type": "websocket.send", "text": text})

    async def send_json(self, document: Mapping[str, Any]) -> None:
        await self.send_text(json.dumps(document, separators=(",", ":"), ensure_ascii=False))

    async def send_bytes(self, data: bytes) -> None:
        await self._put({"type": "websocket.send", "bytes": data})

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Say goodbye. Harmless where the other side is gone, or when repeated."""
        if self.closed or self._gone is not None:
            return
        self.closed = True
        # Cut where a character ends.
        short = reason.encode()[:_MOST_REASON_BYTES].decode(errors="ignore")
        try:
            await self._put({"type": "websocket.close", "code": code, "reason": short})
        except SocketGone:
            return

    async def _put(self, message: dict[str, Any]) -> None:
        if self._gone is not None:
            raise self._gone
        try:
            async with asyncio.timeout(self._limits.send_s), self._sending:
                await self._send(message)
        except TimeoutError:
            raise self._leave(1006) from None
        except OSError:  # how servers say it, by the ASGI specification
            raise self._leave(1006) from None

    def _leave(self, code: int) -> SocketGone:
        self._gone = self._gone or SocketGone(code)
        return self._gone


def close_code(error: VoiceForgeError) -> int:
    """How a socket ends over one of our errors, for surfaces that have no words of their own for it."""
    return _CODES.get(error.kind.value, INTERNAL_ERROR)


_CODES: Mapping[str, int] = {
    "invalid_request": POLICY_VIOLATION,
    "unsupported_option": POLICY_VIOLATION,
    "invalid_audio": BAD_DATA,
    "audio_out_of_limits": POLICY_VIOLATION,
    "too_large": TOO_BIG,
    "unauthenticated": POLICY_VIOLATION,
    "permission_denied": POLICY_VIOLATION,
    "not_found": POLICY_VIOLATION,
    "conflict": POLICY_VIOLATION,
    "overloaded": TRY_AGAIN_LATER,
    "unavailable": SERVICE_RESTART,
    "quota_exceeded": POLICY_VIOLATION,
    "storage_full": TRY_AGAIN_LATER,
    "deadline_exceeded": POLICY_VIOLATION,
}

Serve = Callable[[Socket], Awaitable[None]]


def open_socket(app: Starlette, path: str, serve: Serve, limits: SocketLimits | None = None) -> None:
    """Have `serve` talk with whoever opens a WebSocket at `path`, which may hold parameters."""
    app.router.routes.append(_SocketRoute(path, serve, limits or SocketLimits()))


class _SocketRoute(WebSocketRoute):
    def __init__(self, path: str, serve: Serve, limits: SocketLimits) -> None:
        super().__init__(path, _SocketApp(serve, limits))

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        if match is not Match.NONE:
            found["route"] = self  # for the metrics
        return match, found


class _SocketApp:
    def __init__(self, serve: Serve, limits: SocketLimits) -> None:
        self._serve = serve
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = Socket(scope, receive, send, self._limits)
        try:
            await self._serve(socket)
        except SocketGone:
            return
        if socket.accepted:
            await socket.close()
