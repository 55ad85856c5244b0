"""A transcript as bytes and back, for caches: JSON checked against our types, with its version and its key.

Whoever can write to the cache can change texts, and nothing else: no code is in it, and what does not fit is
refused.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from voiceforge.speech.transcript.types import Transcript

# Of the form below. What transcripts are made of may change with the program, whose version is in the key.
_VERSION = b"1"
_PLAIN, _DEFLATED = b"j", b"z"
# Below, deflating costs more than the bytes are worth.
_SMALL_BYTES = 4096
_LEVEL = 1
_MOST_BYTES = 256 << 20


class UnreadableResult(Exception):
    """Not the bytes of a transcript of this version under this key."""


@dataclass(frozen=True, slots=True)
class _Kept:
    key: str
    transcript: Transcript


class ResultCodec:
    def __init__(self) -> None:
        self._kept = TypeAdapter(_Kept)

    def pack(self, key: str, transcript: Transcript) -> bytes:
        document = to_json(_Kept(key, transcript), inf_nan_mode="constants")
        if len(document) < _SMALL_BYTES:
            return _VERSION + _PLAIN + document
        return _VERSION + _DEFLATED + zlib.compress(document, _LEVEL)

    def unpack(self, key: str, data: bytes) -> Transcript:
        """
        Raises:
            UnreadableResult
        """
        version, form, body = data[:1], data[1:2], data[2:]
        if version != _VERSION or form not in (_PLAIN, _DEFLATED):
            raise UnreadableResult("of another version")
        try:
            kept = self._kept.validate_json(_inflated(body) if form == _DEFLATED else body, strict=True)
        except (ValidationError, zlib.error, UnreadableResult):
            raise UnreadableResult("not a transcript") from None  # its message would quote the text
        if kept.key != key:
            raise UnreadableResult("of another key")
        return kept.transcript


def _inflated(data: bytes) -> bytes:
    inflating = zlib.decompressobj()
    document = inflating.decompress(data, _MOST_BYTES)
    if not inflating.eof:
        raise UnreadableResult("cut off or too large")
    return document
