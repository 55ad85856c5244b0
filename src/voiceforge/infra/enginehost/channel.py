"""Messages and audio over a Unix socket between our own processes.

A message is any picklable value of `messages`, and optionally float32 samples after it, which are
written from and read into arrays without another copy. Both ends are this program, under one user,
on a socket in a folder that only that user can enter: that is why pickle is good enough here.
"""

from __future__ import annotations

import pickle
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

_HEAD = struct.Struct("<II")  # bytes of the message, samples after it
_SAMPLE_BYTES = 4

Samples = NDArray[np.float32]


class ChannelClosed(Exception):
    """The other side is gone, or this side was closed."""


class Channel:
    """One end. `send` never blocks and may be called from any thread; `receive` belongs to one thread.

    What is sent waits in memory for a thread that writes it: a peer that does not read can hold up
    nobody but itself.
    """

    def __init__(self, peer: socket.socket, name: str) -> None:
        self._peer = peer
        self._outgoing: SimpleQueue[tuple[object, Samples | None] | threading.Event | None] = SimpleQueue()
        self._closed = False
        self._writer = threading.Thread(target=self._write, name=f"{name}-writer", daemon=True)
        self._writer.start()

    @classmethod
    def connect(cls, address: Path, name: str) -> Channel:
        """
        Raises:
            ChannelClosed: nobody listens there.
        """
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.connect(str(address))
        except OSError as error:
            peer.close()
            raise ChannelClosed from error
        return cls(peer, name)

    def send(self, message: object, samples: Samples | None = None) -> None:
        """Goes nowhere once the channel is closed. `samples`, shape (n_samples,), must never change again:
        when they are written is not told."""
        if not self._closed:
            self._outgoing.put((message, samples))

    def send_now(self, message: object, patience_s: float) -> None:
        """Send, and wait until it has left this process, but no longer than that."""
        written = threading.Event()
        self.send(message)
        if not self._closed:
            self._outgoing.put(written)
            written.wait(patience_s)

    def receive(self) -> tuple[object, Samples | None]:
        """Wait for the next message.

        Raises:
            ChannelClosed
        """
        message_bytes, count = _HEAD.unpack(self._read(bytearray(_HEAD.size)))
        message = pickle.loads(self._read(bytearray(message_bytes)))  # noqa: S301  # see above
        if not count:
            return message, None
        samples = np.empty(count, np.float32)
        self._read(samples.data.cast("B"))
        return message, samples

    def messages(self) -> Iterator[tuple[object, Samples | None]]:
        """Every message until the other side is gone."""
        while True:
            try:
                received = self.receive()
            except ChannelClosed:
                return
            yield received

    def finish(self, patience_s: float) -> None:
        """Write what waits, then close; the other side gets so long to read it."""
        self._outgoing.put(None)
        self._writer.join(patience_s)
        self.close()

    def close(self) -> None:
        """At once; wakes whoever receives. Idempotent."""
        self._closed = True
        self._outgoing.put(None)
        with suppress(OSError):
            self._peer.shutdown(socket.SHUT_RDWR)
        self._peer.close()

    def _read(self, into: bytearray | memoryview) -> bytearray | memoryview:
        rest = memoryview(into)
        while rest:
            try:
                received = self._peer.recv_into(rest)
            except OSError as error:
                raise ChannelClosed from error
            if not received:
                raise ChannelClosed
            rest = rest[received:]
        return into

    def _write(self) -> None:
        while (entry := self._outgoing.get()) is not None:
            if self._closed:
                return
            if isinstance(entry, threading.Event):
                entry.set()
                continue
            message, samples = entry
            packed = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
            count = 0 if samples is None else len(samples)
            try:
                self._peer.sendall(_HEAD.pack(len(packed), count) + packed)
                if samples is not None:
                    self._peer.sendall(np.ascontiguousarray(samples).data.cast("B"))
            except OSError:
                # The reader of this side notices too, and it is the one who knows what to do.
                self._closed = True
                return
