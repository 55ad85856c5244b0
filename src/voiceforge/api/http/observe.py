"""Counts every request and writes one log line for it: template of the route, status, time; no content.

A WebSocket counts as one too, when it is over, with the status of its handshake. How long it stayed open is
its client's business, so it is left out of the durations.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voiceforge.api.http.asgi import STARTED
from voiceforge.api.http.errors import CLIENT_GONE_STATUS, ErrorReplies
from voiceforge.telemetry.logger import Logger
from voiceforge.telemetry.metrics import Metrics

log = Logger(__name__)

_PROBES = ("/health", "/metrics")
_UNKNOWN_ROUTE = "(none)"
_SOCKET = "WEBSOCKET"
_SWITCHED = 101
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


class Observe:
    def __init__(self, app: ASGIApp, metrics: Metrics, replies: ErrorReplies) -> None:
        self._app = app
        self._metrics = metrics
        self._replies = replies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        surface = self._replies.surface_for(scope["path"]).name
        is_socket = scope["type"] == "websocket"
        status = CLIENT_GONE_STATUS  # what stands if nothing is ever answered

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] in STARTED:
                status = message.get("status", _SWITCHED)
            await send(message)

        started = time.perf_counter()
        try:
            with nullcontext() if is_socket else self._metrics.in_flight(surface):
                await self._app(scope, receive, watched_send)
        finally:
            seconds = time.perf_counter() - started
            # Clients choose methods and paths freely; label values must stay few.
            method = _SOCKET if is_socket else scope["method"] if scope["method"] in _METHODS else "OTHER"
            route = route_template(scope)
            self._metrics.observe_request(
                surface=surface,
                route=route,
                method=method,
                status=status,
                seconds=None if is_socket else seconds,
            )
            for error in self._replies.told(scope):
                self._metrics.observe_error(error.kind, error.code)
            # Probes come every few seconds and say nothing new.
            log_line = log.debug if route.startswith(_PROBES) else log.info
            log_line(
                "request",
                method=method,
                route=route,
                status=status,
                seconds=round(seconds, 4),
                errors=[error.code for error in self._replies.told(scope)],
            )


def route_template(scope: dict[str, Any] | Scope) -> str:
    return str(getattr(scope.get("route"), "path", _UNKNOWN_ROUTE))
