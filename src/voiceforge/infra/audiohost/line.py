"""Messages between two of our processes over a Unix socket: JSON, arrays after it, perhaps an open file.

JSON, since one end reads anybody's audio: whoever took it over must find nothing to take over here.
"""

from __future__ import annotations

import json
import select
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEAD = struct.Struct("<I")  # bytes of JSON
_SIZES = "sizes"
_MOST_MESSAGE_BYTES = 16 << 20
_MOST_ARRAY_BYTES = 1 << 30

Bytes = NDArray[np.uint8]


class LineClosed(Exception):
    """The other side is gone, or this side was closed."""


class Garbled(Exception):
    """What came is not what this side was promised."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """arrays: uint8, shape (n_bytes,). descriptor: an open file, the receiver's to close."""

    message: Mapping[str, Any]
    arrays: Sequence[Bytes] = ()
    descriptor: int | None = None


class Line:
    """One end. `send` and `receive` belong to one thread at a time, `shut` to any.

    Args:
        takes_files: an open file may come with a message.
    """

    def __init__(self, peer: socket.socket, *, takes_files: bool = False) -> None:
        self._peer = peer
        self._takes_files = takes_files

    def fileno(self) -> int:
        return self._peer.fileno()

    def send(
        self,
        message: Mapping[str, Any],
        arrays: Sequence[memoryview] = (),
        *,
        descriptor: int | None = None,
        patience_s: float | None = None,
    ) -> None:
        """
        Raises:
            LineClosed
            TimeoutError: the other side has taken nothing for `patience_s`; the line is of no use any more.
        """
        sizes = [array.nbytes for array in arrays]
        packed = json.dumps({**message, _SIZES: sizes} if sizes else message).encode()
        data = _HEAD.pack(len(packed)) + packed
        try:
            self._peer.settimeout(patience_s)
            if descriptor is not None:
                data = data[socket.send_fds(self._peer, [data], [descriptor]) :]
            self._peer.sendall(data)
            for array in arrays:
                self._peer.sendall(array.cast("B"))
        except TimeoutError:
            raise
        except OSError as error:
            raise LineClosed from error

    def receive(self, patience_s: float | None = None) -> Parcel:
        """Wait for the next message.

        Raises:
            LineClosed, Garbled
            TimeoutError: nothing came for `patience_s`.
        """
        try:
            self._peer.settimeout(patience_s)
        except OSError as error:
            raise LineClosed from error
        head, descriptor = self._receive_head()
        (size,) = _HEAD.unpack(head)
        if size > _MOST_MESSAGE_BYTES:
            raise Garbled
        packed = bytearray(size)
        self._fill(memoryview(packed))
        try:
            message = json.loads(packed)
            sizes = message.pop(_SIZES, [])
            if sum(sizes) > _MOST_ARRAY_BYTES:
                raise Garbled
            arrays = [np.empty(size, np.uint8) for size in sizes]
        except (ValueError, TypeError, AttributeError) as error:
            raise Garbled from error
        for array in arrays:
            self._fill(array.data)
        return Parcel(message, arrays, descriptor)

    def ready(self, patience_s: float = 0.0) -> bool:
        """Whether a message, or the end, is there or comes in time.

        Raises:
            LineClosed: this side closed it.
        """
        poll = select.poll()
        try:
            poll.register(self._peer, select.POLLIN)
        except ValueError as error:
            raise LineClosed from error
        return bool(poll.poll(patience_s * 1000))

    def shut(self) -> None:
        """Both sides find the line closed, whatever they are doing."""
        with suppress(OSError):
            self._peer.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._peer.close()

    def _receive_head(self) -> tuple[bytearray, int | None]:
        head = bytearray(_HEAD.size)
        if not self._takes_files:
            self._fill(memoryview(head))
            return head, None
        try:
            start, descriptors, _, _ = socket.recv_fds(self._peer, _HEAD.size, 1)
        except TimeoutError:
            raise
        except OSError as error:
            raise LineClosed from error
        if not start:
            raise LineClosed
        head[: len(start)] = start
        self._fill(memoryview(head)[len(start) :])
        return head, descriptors[0] if descriptors else None

    def _fill(self, rest: memoryview) -> None:
        while rest:
            try:
                received = self._peer.recv_into(rest)
            except TimeoutError:
                raise
            except OSError as error:
                raise LineClosed from error
            if not received:
                raise LineClosed
            rest = rest[received:]
