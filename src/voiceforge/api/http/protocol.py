"""uvicorn's fast HTTP parser and its WebSockets, bounded, and without work that nobody needs.

By itself it collects a header, a trailer or a chunk's extension for as long as the peer sends one; here that
has an end. Bodies go through it without being copied, and a short reply leaves in one piece.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio.transports import BaseTransport
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

# A read from a socket brings up to four times that: one that nobody has taken yet is enough.
_MOST_WAITING_BYTES = 64 * 1024
_SHORT_BYTES = 16 * 1024
_MOST_UNSENT_BYTES = 256 * 1024
_MOST_UNHEARD_MESSAGES = 16
_LINGER_S = 2.0


def _nobody_asks() -> None:
    return


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """
    head_bytes: most that may come of what is neither a body nor whole headers.
    head_s: so long may the headers of a request take; whoever says nothing at all gets no more either.
    unread_s: a client that takes nothing of its answer for so long is given up.
    connections: at once, of all kinds.
    on_full: called for each that is turned away.
    """

    head_bytes: int = 64 * 1024
    head_s: float = 20.0
    unread_s: float = 60.0
    connections: int = 4096
    on_full: Callable[[], None] = _nobody_asks


class BoundedHeadProtocol(HttpToolsProtocol):
    """Ends a connection that goes beyond its limits."""

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()
    """Where the server names none."""

    _unread_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, limits: ConnectionLimits | None = None, **more: Any) -> None:
        super().__init__(*args, **more)
        self._limits = limits or self.limits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = _InOnePiece(transport)  # type: ignore[assignment]
        if len(self.connections) > self._limits.connections:
            self._limits.on_full()
            self._turn_away(
                HTTPStatus.SERVICE_UNAVAILABLE, "There are too many connections.", b"retry-after: 1\r\n"
            )
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self._is_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reading(0)

    def resume_writing(self) -> None:
        self._is_read()
        super().resume_writing()

    def _watch_reading(self, before_bytes: int) -> None:
        """Again and again while the client takes something: slow is not idle.

        Args:
            before_bytes: unread at the last look; 0: there was none.
        """
        unread_bytes = self.transport.get_write_buffer_size()
        if before_bytes and unread_bytes >= before_bytes:
            self.transport.abort()
            return
        self._unread_timer = self.loop.call_later(self._limits.unread_s, self._watch_reading, unread_bytes)

    def _is_read(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        # A transport that is closed stays for as long as somebody does not read the rest.
        if self.transport.get_write_buffer_size() and self._unread_timer is None:
            self._watch_reading(0)

    def on_message_begin(self) -> None:
        self._await_head()
        super().on_message_begin()

    def data_received(self, data: bytes) -> None:
        self._unread_bytes += len(data)
        if self.transport.is_closing():
            return  # it was turned away
        super().data_received(data)
        if self._unread_bytes > self._limits.head_bytes and not self.transport.is_closing():
            self._turn_away(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                f"The request's headers are larger than {self._limits.head_bytes:,} bytes.",
            )

    def _turn_away(self, status: HTTPStatus, message: str, headers: bytes = b"") -> None:
        """In plain words: no surface was asked yet."""
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n"
            b"cache-control: no-store\r\nconnection: close\r\n%s\r\n%s"
            % (status, status.phrase.encode(), len(message), headers, message.encode("ascii"))
        )
        self.transport.close()

    def _await_head(self) -> None:
        self._head_came()
        self._head_timer = self.loop.call_later(self._limits.head_s, self.transport.close)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def on_headers_complete(self) -> None:
        self._head_came()
        self._unread_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """As uvicorn has it, but a body that comes in few pieces is not copied, and reading does not stop for
        every one of them."""
        self._unread_bytes = 0
        cycle = self.cycle
        if cycle.response_complete:
            return
        held: bytes | bytearray = cycle.body
        if not held:
            cycle.body = body  # type: ignore[assignment]  # the application gets it as it is
        elif isinstance(held, bytes):
            cycle.body = bytearray(held) + body
        else:
            held += body
        if len(cycle.body) > _MOST_WAITING_BYTES:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._unread_bytes = 0
        super().on_message_complete()


class BoundedSocketProtocol(WebSocketsSansIOProtocol):
    """Keeps no more for a client that does not read than `_MOST_UNSENT_BYTES`, and reads on while little is
    unheard: by itself it stops and starts reading for every single message, two system calls each."""

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=_MOST_UNSENT_BYTES)
        # It would write whole URLs, and there may be keys in them; `Observe` says the rest.
        self.logger = self.logger.getChild("sockets")
        self.logger.setLevel(logging.WARNING)
        self.conn.logger = self.logger

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True  # or it complains that the app never finished it

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        # What a client does not read keeps a connection that is being closed, and its buffer, for ever.
        if self.transport.get_write_buffer_size():
            self.loop.call_later(_LINGER_S, self.transport.abort)

    def send_receive_event_to_app(self) -> None:
        read_paused = self.read_paused
        waiting = self.queue.qsize() >= _MOST_UNHEARD_MESSAGES or sum(map(len, self.frames)) > _SHORT_BYTES
        self.read_paused = read_paused or not waiting  # then it does not pause
        try:
            super().send_receive_event_to_app()
        finally:
            if not waiting:
                self.read_paused = read_paused


class _InOnePiece:
    """A transport that holds what is written back until the event loop's next turn, to send it together.

    uvicorn writes the head of a reply, then its body; each would be a system call and a packet.
    """

    def __init__(self, inner: asyncio.Transport) -> None:
        self._inner = inner
        self._loop = asyncio.get_running_loop()
        self._held = b""
        self.is_closing = inner.is_closing

    def write(self, data: bytes) -> None:
        if self._held:
            self._held, data = b"", self._held + data
            self._inner.write(data)
        elif len(data) < _SHORT_BYTES:
            self._held = data
            self._loop.call_soon(self._flush)
        else:
            self._inner.write(data)

    def _flush(self) -> None:
        if self._held:
            self._held, data = b"", self._held
            self._inner.write(data)

    def close(self) -> None:
        self._flush()
        self._inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
