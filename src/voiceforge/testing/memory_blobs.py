"""Blobs in memory, which can be told to fail."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from voiceforge.errors import BlobMissing, VoiceForgeError
from voiceforge.infra.blobs.base import BLOCK_BYTES, BlobInfo, Content, check_key, check_prefix
from voiceforge.infra.blobs.content import blocks, read_back, verified
from voiceforge.infra.blobs.off_loop import fetched


class MemoryBlobs:
    """See `Blobs`; gone with its process.

    Attributes:
        failing: raised by every call while it is set, such as `Unavailable` or `StorageFull`.
    """

    def __init__(self) -> None:
        self.failing: VoiceForgeError | None = None
        self._held: dict[str, tuple[bytes, float]] = {}

    async def put(
        self, key: str, content: Content, *, sha256: bytes | None = None, take: bool = False
    ) -> BlobInfo:
        self._asked(key)
        if any(held.startswith(f"{key}/") or key.startswith(f"{held}/") for held in self._held):
            raise ValueError("one key is the folder of another")
        async with aclosing(verified(blocks(content), sha256)) as pieces:
            whole = b"".join([piece async for piece in pieces])
        self._asked(key)
        self._held[key] = (whole, time.time())
        if take and isinstance(content, Path):
            content.unlink(missing_ok=True)
        return self._found(key)

    async def read(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        self._asked(key)
        if start < 0:
            raise ValueError("start is negative")
        self._found(key)
        whole = self._held[key][0]
        for begin in range(start, len(whole), BLOCK_BYTES):
            yield whole[begin : begin + BLOCK_BYTES]

    @asynccontextmanager
    async def at_path(self, key: str, folder: Path, *, sha256: bytes | None = None) -> AsyncIterator[Path]:
        async with fetched(read_back(self.read(key), sha256), folder) as path:
            yield path

    async def info(self, key: str) -> BlobInfo | None:
        self._asked(key)
        return self._found(key) if key in self._held else None

    async def delete(self, key: str) -> bool:
        self._asked(key)
        return self._held.pop(key, None) is not None

    async def list(self, prefix: str = "") -> AsyncGenerator[BlobInfo, None]:
        below = check_prefix(prefix)
        self._asked()
        for key in sorted(self._held):
            if key in self._held and (not below or key.startswith(f"{below}/")):
                yield self._found(key)

    async def download_url(self, key: str, *, expires_s: float, filename: str | None = None) -> str | None:
        self._asked(key)
        return None

    async def upload_url(self, key: str, *, expires_s: float) -> str | None:
        self._asked(key)
        return None

    async def sweep_partial(self, older_than_s: float) -> int:
        self._asked()
        return 0

    async def check(self) -> None:
        self._asked()

    async def close(self) -> None:
        pass

    def _asked(self, key: str | None = None) -> None:
        if key is not None:
            check_key(key)
        if self.failing is not None:
            raise self.failing

    def _found(self, key: str) -> BlobInfo:
        if key not in self._held:
            raise BlobMissing("what was stored here is not there any more")
        whole, stored_at = self._held[key]
        return BlobInfo(key, len(whole), stored_at)
