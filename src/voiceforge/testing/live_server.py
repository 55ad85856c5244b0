"""An ASGI application on a real socket of this machine, for clients that insist on one."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from voiceforge.api.http.protocol import BoundedHeadProtocol, BoundedSocketProtocol


@dataclass(frozen=True, slots=True)
class LiveServer:
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@contextmanager
def live_server(
    app: ASGIApp,
    *,
    max_frame_bytes: int = 1 << 20,
    http: type[BoundedHeadProtocol] = BoundedHeadProtocol,
) -> Iterator[LiveServer]:
    """Serve `app` on a free port of 127.0.0.1, in a thread, while the block runs."""
    listening = socket.create_server(("127.0.0.1", 0))
    # asyncio leaves Nagle's algorithm on where the socket names no protocol, which costs 40 ms a reply.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        app,
        http=http,
        ws=BoundedSocketProtocol,
        ws_max_size=max_frame_bytes,
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=asyncio.run, args=(server.serve(sockets=[listening]),), name="live-server"
    )
    thread.start()
    try:
        # Connections wait in the listening socket until the server is up.
        yield LiveServer("127.0.0.1", listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
