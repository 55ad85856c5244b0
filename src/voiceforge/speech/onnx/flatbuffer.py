"""Reads a flatbuffer: tables of numbered fields, by offsets into one block of bytes.

The library that comes with onnxruntime asks for a dozen calls where one look-up does; reading the embedded
model's decoder took it 80 ms. Nothing is checked but that reads stay inside the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_u16 = struct.Struct("<H").unpack_from
_i32 = struct.Struct("<i").unpack_from
_u32 = struct.Struct("<I").unpack_from


class Table:
    """Fields are named by their place in the schema's table, from 0. One that is not there reads as 0, "",
    None or nothing.

    Damaged bytes make any method raise struct.error, IndexError or ValueError, or tell nonsense.
    """

    __slots__ = ("_at", "_vtable", "_vtable_bytes", "data")

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self._at = at
        self._vtable = at - _i32(data, at)[0]
        self._vtable_bytes = _u16(data, self._vtable)[0]

    @classmethod
    def root(cls, data: bytes) -> Table:
        return cls(data, _u32(data, 0)[0])

    def number(self, field: int) -> int:
        """Of 32 bits, signed."""
        place = self._place(field)
        value: int = _i32(self.data, place)[0] if place else 0
        return value

    def text(self, field: int) -> str:
        place = self._place(field)
        return self._text(place) if place else ""

    def table(self, field: int) -> Table | None:
        place = self._place(field)
        return Table(self.data, self._followed(place)) if place else None

    def tables(self, field: int) -> Iterator[Table]:
        for place in self._places(field):
            yield Table(self.data, self._followed(place))

    def texts(self, field: int) -> list[str]:
        return [self._text(place) for place in self._places(field)]

    def vector(self, field: int) -> tuple[int, int]:
        """Where the items of a vector begin, and how many there are."""
        place = self._place(field)
        if not place:
            return 0, 0
        start = self._followed(place)
        return start + 4, _u32(self.data, start)[0]

    def _places(self, field: int) -> range:
        first, length = self.vector(field)
        return range(first, first + 4 * length, 4)

    def _place(self, field: int) -> int:
        entry = 4 + 2 * field
        if entry >= self._vtable_bytes:
            return 0
        offset: int = _u16(self.data, self._vtable + entry)[0]
        return self._at + offset if offset else 0

    def _followed(self, place: int) -> int:
        offset: int = _u32(self.data, place)[0]
        return place + offset

    def _text(self, place: int) -> str:
        start = self._followed(place)
        length = _u32(self.data, start)[0]
        return str(self.data[start + 4 : start + 4 + length], "utf-8")
