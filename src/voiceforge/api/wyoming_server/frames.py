"""Wyoming's frames, from bytes to values and back, with an end to everything a peer can make us hold.

    {"type": …, "data": {…}, "data_length": n, "payload_length": m}\\n    n bytes of JSON    m bytes

The package `wyoming` has a reader of its own; it believes whatever lengths a peer names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from voiceforge.errors import InvalidRequest

_VERSION = "1.10.0"  # of the protocol we speak


class BadFrame(InvalidRequest):
    """What came is no frame, or too large a one. Nothing after it can be understood."""

    code = "bad_frame"


@dataclass(frozen=True, slots=True)
class Frame:
    type: str
    data: Mapping[str, Any] = field(default_factory=dict)
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class FrameLimits:
    line_bytes: int = 64 * 1024
    data_bytes: int = 256 * 1024
    payload_bytes: int = 4 * 1024 * 1024


class FrameReader:
    """Give it what arrives; it gives frames. Holds at most one frame's worth of the limits."""

    def __init__(self, limits: FrameLimits | None = None) -> None:
        self._limits = limits or FrameLimits()
        self._buffer = bytearray()
        self._head: _Head | None = None

    @property
    def idle(self) -> bool:
        """Between two frames."""
        return not self._buffer and self._head is None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """
        Raises:
            BadFrame: on the way; the reader is of no more use.
        """
        self._buffer += data
        while True:
            if self._head is None:
                line = self._line()
                if line is None:
                    return
                self._head = _head(line, self._limits)
            if len(self._buffer) < self._head.data_bytes + self._head.payload_bytes:
                return
            head, self._head = self._head, None
            more = self._take(head.data_bytes)
            yield Frame(
                head.type, {**head.data, **(_table(more) if more else {})}, self._take(head.payload_bytes)
            )

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\n", 0, self._limits.line_bytes + 1)
        if end < 0:
            if len(self._buffer) > self._limits.line_bytes:
                raise BadFrame(f"a line has more than {self._limits.line_bytes} bytes")
            return None
        return self._take(end + 1)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken


@dataclass(frozen=True, slots=True)
class _Head:
    type: str
    data: Mapping[str, Any]
    data_bytes: int
    payload_bytes: int


def _head(line: bytes, limits: FrameLimits) -> _Head:
    table = _table(line)
    kind = table.get("type")
    if not isinstance(kind, str):
        raise BadFrame("an event has no type")
    data = table.get("data")
    if data is not None and not isinstance(data, dict):
        raise BadFrame("data is not an object")
    return _Head(
        kind,
        data or {},
        _length(table, "data_length", limits.data_bytes),
        _length(table, "payload_length", limits.payload_bytes),
    )


def _table(text: bytes) -> dict[str, Any]:
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        raise BadFrame("an event is not valid JSON") from None
    if not isinstance(table, dict):
        raise BadFrame("an event is not a JSON object")
    return table


def _length(table: Mapping[str, Any], name: str, most: int) -> int:
    length = table.get(name)
    if length is None:
        return 0
    if not isinstance(length, int) or isinstance(length, bool) or length < 0:
        raise BadFrame(f"{name} is no length")
    if length > most:
        raise BadFrame(f"{name} is above {most}")
    return length


def encode(kind: str, data: Mapping[str, Any] | None = None) -> bytes:
    """An event without payload. The data stand behind the line, which readers hold to 64 KiB."""
    head: dict[str, Any] = {"type": kind, "version": _VERSION}
    body = json.dumps(data, ensure_ascii=False).encode() if data else b""
    if body:
        head["data_length"] = len(body)
    return json.dumps(head).encode() + b"\n" + body
