"""Wyoming over TCP: who may connect, how long, and what is said where something goes wrong.

The protocol knows no keys: the address a client comes from is all there is to judge it by.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from voiceforge.api.wyoming_server.convert import info
from voiceforge.api.wyoming_server.frames import FrameReader, encode
from voiceforge.api.wyoming_server.session import Session, Whose
from voiceforge.errors import DeadlineExceeded, ErrorKind, Overloaded, VoiceForgeError
from voiceforge.services.access import DEFAULT_TENANT
from voiceforge.services.authentication import Authentication
from voiceforge.services.models import Models
from voiceforge.services.streams import StreamRequest, Streams
from voiceforge.telemetry.logger import Logger

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_READ_BYTES = 64 * 1024
_MOST_UNSENT_BYTES = 256 * 1024
_LINGER_S = 1.0
_HANDSHAKE_S = 10.0

_log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class WyomingConfig:
    """
    allow: networks whose clients are let in; empty: all.
    tenants: whose the commands from certain networks are, the narrowest first. tenant: all others'.
    idle_s: a connection that brings nothing for so long is closed.
    send_s: likewise one that takes nothing, once as much waits for it as the connection holds.
    """

    version: str
    allow: Sequence[Network] = ()
    tenants: Sequence[tuple[Network, str]] = ()
    tenant: str = DEFAULT_TENANT
    idle_s: float = 60.0
    send_s: float = 10.0
    max_connections: int = 256


class WyomingServer:
    """Belongs to one event loop."""

    def __init__(
        self, streams: Streams, models: Models, authentication: Authentication, config: WyomingConfig
    ) -> None:
        self._authentication = authentication
        self._streams = streams
        self._models = models
        self._config = config
        self._server: asyncio.Server | None = None
        self._listener: socket.socket | None = None
        self._connections: set[_Connection] = set()

    async def start(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Takes over the socket."""
        self._listener = listener
        await self.accept(tls)

    async def accept(self, tls: ssl.SSLContext | None) -> None:
        """From now on connections begin like this; those that are open go on as they are."""
        assert self._listener is not None
        before = self._server
        self._server = await asyncio.start_server(
            self._welcome,
            sock=self._listener.dup(),
            ssl=tls,
            ssl_handshake_timeout=None if tls is None else _HANDSHAKE_S,
        )
        if before is not None:
            before.close()

    async def stop(self, grace_s: float) -> None:
        """No new connection; those where nothing is being said end at once, the others have `grace_s`."""
        if self._server is None or self._listener is None:
            return
        self._server.close()
        self._listener.close()
        for connection in self._connections:
            if connection.session.idle:
                connection.task.cancel()
        await self._gone(grace_s)
        for connection in self._connections:
            connection.task.cancel()
        await self._gone(2 * _LINGER_S)

    async def _gone(self, timeout_s: float) -> None:
        if tasks := [connection.task for connection in self._connections]:
            await asyncio.wait(tasks, timeout=timeout_s)

    async def describe(self) -> Mapping[str, Any]:
        return await asyncio.to_thread(self._info)

    def _info(self) -> Mapping[str, Any]:
        try:
            default = self._streams.check(StreamRequest())
        except VoiceForgeError:
            default = None  # the rest can still be used
        return info(self._models.installed(), default, self._config.version)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        peer = writer.get_extra_info("peername")
        address = _address(peer[0] if peer else "")
        if not self._is_welcome(address):
            _log.warning("wyoming_refused", reason="address")
            writer.close()
            return
        whose = partial(self._authentication.of_tenant, self._tenant(address), str(address or ""))
        connection = _Connection(reader, writer, task, self, whose, self._streams, self._config)
        if len(self._connections) >= self._config.max_connections:
            await connection.explain(Overloaded("there are too many connections"))
            writer.close()
            return
        self._connections.add(connection)
        try:
            await connection.run()
        except asyncio.CancelledError:
            return  # we leave; asyncio would log it as if it were a fault
        finally:
            self._connections.discard(connection)

    def _is_welcome(self, address: Address | None) -> bool:
        allow = self._config.allow
        return not allow or (address is not None and any(address in network for network in allow))

    def _tenant(self, address: Address | None) -> str:
        for network, tenant in self._config.tenants:
            if address is not None and address in network:
                return tenant
        return self._config.tenant


def _address(text: str) -> Address | None:
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


class _Connection:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        task: asyncio.Task[None],
        server: WyomingServer,
        whose: Whose,
        streams: Streams,
        config: WyomingConfig,
    ) -> None:
        self.task = task
        self.session = Session(streams, whose, server.describe, self._send, self._on_failure)
        self._reader = reader
        self._writer = writer
        self._idle_s = config.idle_s
        self._send_s = config.send_s
        self._frames = FrameReader()
        self._serving = False
        self._failure: Exception | None = None
        writer.transport.set_write_buffer_limits(high=_MOST_UNSENT_BYTES)

    async def run(self) -> None:
        try:
            await self._serve()
        except Exception as error:
            await self.explain(error)
        finally:
            await self.session.leave()
            await self._hang_up()

    async def explain(self, error: Exception) -> None:
        """Say what is wrong. The caller hangs up: the client reads on for ever otherwise."""
        if isinstance(error, ConnectionError):
            return
        ours = error if isinstance(error, VoiceForgeError) else None
        if ours is None or ours.kind is ErrorKind.INTERNAL:
            _log.error("wyoming_failed", code=ours.code if ours else "internal_error", exc_info=error)
        else:
            _log.info("wyoming_refused", code=ours.code)
        text = ours.message if ours else "something went wrong on our side"
        with contextlib.suppress(ConnectionError):
            await self._send("error", {"text": text, "code": ours.code if ours else "internal_error"})

    def _on_failure(self, error: Exception) -> None:
        """A stream ended by itself, while we wait for its client."""
        if self._serving and self._failure is None:
            self._failure = error
            self.task.cancel()

    async def _serve(self) -> None:
        self._serving = True
        try:
            while data := await self._read():
                for frame in self._frames.feed(data):
                    await self.session.handle(frame)
        except asyncio.CancelledError:
            if self._failure is None:
                raise
            self.task.uncancel()
            raise self._failure from None
        finally:
            self._serving = False

    async def _read(self) -> bytes:
        """What arrives; nothing where the client has left.

        Raises:
            DeadlineExceeded: nothing arrives.
        """
        while True:
            try:
                async with asyncio.timeout(self._idle_s):
                    return await self._reader.read(_READ_BYTES)
            except TimeoutError:
                if not self.session.owes:
                    raise DeadlineExceeded(f"nothing came for {self._idle_s:g} s") from None

    async def _send(self, kind: str, data: Mapping[str, Any] | None = None) -> None:
        """
        Raises:
            ConnectionError: the client has left, or does not read.
        """
        if self._writer.is_closing():
            raise ConnectionResetError
        self._writer.write(encode(kind, data))
        try:
            async with asyncio.timeout(self._send_s):
                await self._writer.drain()
        except TimeoutError:
            self._writer.transport.abort()
            raise ConnectionResetError("the client reads nothing") from None

    async def _hang_up(self) -> None:
        """Decently: what is still on its way to us would have the last words of ours thrown away."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                self._writer.write_eof()
                while await self._reader.read(_READ_BYTES):
                    pass
        self._writer.transport.abort()
