"""The seam to the store of blobs: whole files under keys. What they hold is not known here."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Content = Path | bytes | AsyncIterable[bytes]
"""What a blob is made of; a path names a file that nobody changes meanwhile."""

BLOCK_BYTES = 1 << 20
"""Blobs move through memory in pieces of about this size."""

MAX_KEY_CHARS = 512
_SEGMENT = r"[A-Za-z0-9_-](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?"
_KEY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """stored_at: Unix seconds; object stores tell whole ones."""

    key: str
    size_bytes: int
    stored_at: float


def check_key(key: str) -> str:
    """The key itself, when every store and file system takes it.

    Segments between slashes have 1 to 128 ASCII letters, digits, `_`, `-` and `.`, the last not at either
    end: no `..`, nothing hidden, nothing absolute. A key is never also the folder of another one.

    Raises:
        ValueError: it is not a key; keys are made by us, so this is a mistake of ours.
    """
    if len(key) > MAX_KEY_CHARS or _KEY.fullmatch(key) is None:
        raise ValueError("not the key of a blob")
    return key


def check_prefix(prefix: str) -> str:
    """Whole segments, with or without a slash at the end, or nothing; returned without the slash.

    Raises:
        ValueError: likewise.
    """
    return check_key(prefix.removesuffix("/")) if prefix else prefix


class Blobs(Protocol):
    """Safe to use from many tasks of one event loop, and from many processes.

    Raises (every method):
        Unavailable: the store does not answer, not in time, or refuses us; says when to come back.
        ValueError: something is no key.
    """

    async def put(
        self, key: str, content: Content, *, sha256: bytes | None = None, take: bool = False
    ) -> BlobInfo:
        """Store `content`, in place of what was there. The key shows all of it or what it showed before,
        also after a crash, a cancellation, or when somebody else puts the same key at the same time. A store
        that did not answer may still come to it later: then all of it appears after the error.

        Args:
            sha256: what the content must hash to, 32 bytes.
            take: the file at the path is the store's from now on, moved where that is possible; it is gone
                afterwards. It stays where storing failed.

        Raises:
            ChecksumMismatch: the content is another than `sha256` says.
            StorageFull: there is no room for it.
            Exception: whatever the source raised.
        """
        ...

    def read(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` on, a piece at a time; none from the end on.

        Raises:
            BlobMissing: at the first piece.
        """
        ...

    def at_path(
        self, key: str, folder: Path, *, sha256: bytes | None = None
    ) -> AbstractAsyncContextManager[Path]:
        """A file to read while the block runs, and not to change: the stored one itself where it lies on this
        machine, else a copy in `folder`, complete and, where `sha256` is given, checked against it.

        Raises:
            BlobMissing
            StorageFull: `folder` has no room for the copy.
        """
        ...

    async def info(self, key: str) -> BlobInfo | None: ...

    async def delete(self, key: str) -> bool:
        """Whether there was anything to remove."""
        ...

    def list(self, prefix: str = "") -> AsyncGenerator[BlobInfo, None]:
        """Blobs below `prefix`, in no certain order: `a/b` finds `a/b/c`, not `a/bc`. What is stored or
        deleted meanwhile may or may not be among them."""
        ...

    async def download_url(self, key: str, *, expires_s: float, filename: str | None = None) -> str | None:
        """An address that gives the blob to whoever has it, by GET; None where the store has no such thing.

        Args:
            expires_s: from now on, at most seven days.
            filename: under which browsers save it, where the store can tell them.
        """
        ...

    async def upload_url(self, key: str, *, expires_s: float) -> str | None:
        """Likewise an address that takes the blob, by PUT."""
        ...

    async def sweep_partial(self, older_than_s: float) -> int:
        """Remove what puts that broke off left behind and nobody sees; returns how many of them. A put that
        is running and wrote nothing for so long may fail by it."""
        ...

    async def check(self) -> None:
        """Raises where the store could not be used now; quick.

        Raises:
            StorageFull
        """
        ...

    async def close(self) -> None: ...
