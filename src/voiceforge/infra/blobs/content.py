"""Content on its way into a store: pieces of even size, checked against what they should hash to."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from io import FileIO
from pathlib import Path

from voiceforge.errors import ChecksumMismatch, Unavailable
from voiceforge.infra.blobs.base import BLOCK_BYTES, Content
from voiceforge.infra.blobs.off_loop import to_end


async def blocks(content: Content, size_bytes: int = BLOCK_BYTES) -> AsyncGenerator[bytes, None]:
    """The content in pieces of exactly `size_bytes`, the last one shorter; none of no content."""
    held = bytearray()
    async with aclosing(_pieces(content, size_bytes)) as pieces:
        async for piece in pieces:
            if not held and len(piece) == size_bytes:
                yield piece
                continue
            held += piece
            while len(held) >= size_bytes:
                yield bytes(memoryview(held)[:size_bytes])
                del held[:size_bytes]
    if held:
        yield bytes(held)


async def verified(pieces: AsyncIterable[bytes], sha256: bytes | None) -> AsyncGenerator[bytes, None]:
    """The same pieces; ends with an error where they do not hash to `sha256`.

    Raises:
        ChecksumMismatch: after the last piece.
    """
    if sha256 is None:
        async for piece in pieces:
            yield piece
        return
    digest = hashlib.sha256()
    async for piece in pieces:
        await asyncio.to_thread(digest.update, piece)
        yield piece
    if digest.digest() != sha256:
        raise ChecksumMismatch("the content does not have the SHA-256 digest that was given for it")


async def read_back(pieces: AsyncGenerator[bytes, None], sha256: bytes | None) -> AsyncGenerator[bytes, None]:
    """`verified`, of what a store gives back: that is no fault of a caller, and may be whole another time.

    Raises:
        Unavailable: after the last piece.
    """
    try:
        async with aclosing(pieces), aclosing(verified(pieces, sha256)) as checked:
            async for piece in checked:
                yield piece
    except ChecksumMismatch as error:
        raise Unavailable("the store gave back another content than was stored") from error


async def _pieces(content: Content, size_bytes: int) -> AsyncGenerator[bytes, None]:
    match content:
        case bytes():
            for start in range(0, len(content), size_bytes):
                yield content[start : start + size_bytes]
        case Path():
            file = await to_end(lambda: content.open("rb", buffering=0), drop=FileIO.close)
            with file:
                while piece := await to_end(file.read, size_bytes):
                    yield piece
        case _:
            async for piece in content:
                yield piece
