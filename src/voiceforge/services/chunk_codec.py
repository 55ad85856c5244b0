"""A chunk as bytes and back, for the database: JSON checked against our types, with its version and owner.

Floats come back as they were, to the last bit, so that a run that goes on ends as one that never stopped.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from voiceforge.services.packed_json import UnreadablePack, packed, unpacked
from voiceforge.speech.pipeline.checkpoints import Chunk

# Of the form below and of what chunks are made of.
_VERSION = b"1"


class UnreadableChunk(Exception):
    """Not the bytes of a chunk of this version and owner: what it holds has to be done again."""


@dataclass(frozen=True, slots=True)
class _Kept:
    owner: str
    chunk: Chunk


class ChunkCodec:
    def __init__(self) -> None:
        self._kept = TypeAdapter(_Kept)

    def pack(self, owner: str, chunk: Chunk) -> bytes:
        """
        Args:
            owner: what the chunk belongs to, such as the id of a job and the digest of its recording.
        """
        return packed(_VERSION, to_json(_Kept(owner, chunk), inf_nan_mode="constants"))

    def unpack(self, owner: str, data: bytes) -> Chunk:
        """
        Raises:
            UnreadableChunk
        """
        try:
            kept = self._kept.validate_json(unpacked(_VERSION, data), strict=True)
        except UnreadablePack as error:
            raise UnreadableChunk(str(error)) from None
        except ValidationError:
            raise UnreadableChunk("not a chunk") from None  # its message would quote the text
        if kept.owner != owner:
            raise UnreadableChunk("of another owner")
        return kept.chunk
