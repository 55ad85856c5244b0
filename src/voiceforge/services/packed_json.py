"""A JSON document as bytes that are kept: with the version of its form, deflated where that is worth it."""

from __future__ import annotations

import zlib

_PLAIN, _DEFLATED = b"j", b"z"
# Below, deflating costs more than the bytes are worth.
_SMALL_BYTES = 4096
_LEVEL = 1
_MOST_BYTES = 256 << 20


class UnreadablePack(Exception):
    """Not bytes that `packed` made, or of another version."""


def packed(version: bytes, document: bytes) -> bytes:
    """
    Args:
        version: one byte.
    """
    if len(document) < _SMALL_BYTES:
        return version + _PLAIN + document
    return version + _DEFLATED + zlib.compress(document, _LEVEL)


def unpacked(version: bytes, data: bytes) -> bytes:
    """
    Raises:
        UnreadablePack
    """
    found, form, body = data[:1], data[1:2], data[2:]
    if found != version or form not in (_PLAIN, _DEFLATED):
        raise UnreadablePack("of another version")
    if form == _PLAIN:
        return body
    inflating = zlib.decompressobj()
    try:
        document = inflating.decompress(body, _MOST_BYTES)
    except zlib.error:
        raise UnreadablePack("damaged") from None
    if not inflating.eof:
        raise UnreadablePack("cut off or too large")
    return document
