"""A transcript as bytes and back, for caches: JSON checked against our types, with its version and its key.

Whoever can write to the cache can change texts, and nothing else: no code is in it, and what does not fit is
refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from voiceforge.services.packed_json import UnreadablePack, packed, unpacked
from voiceforge.speech.transcript.types import Transcript

# Of the form below. What transcripts are made of may change with the program, whose version is in the key.
_VERSION = b"1"


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
        return packed(_VERSION, to_json(_Kept(key, transcript), inf_nan_mode="constants"))

    def unpack(self, key: str, data: bytes) -> Transcript:
        """
        Raises:
            UnreadableResult
        """
        try:
            kept = self._kept.validate_json(unpacked(_VERSION, data), strict=True)
        except UnreadablePack as error:
            raise UnreadableResult(str(error)) from None
        except ValidationError:
            raise UnreadableResult("not a transcript") from None  # its message would quote the text
        if kept.key != key:
            raise UnreadableResult("of another key")
        return kept.transcript
