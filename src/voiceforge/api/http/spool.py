"""One recording on its way in: in memory while it is small, else in a temp file, with its digest."""

from __future__ import annotations

import asyncio
import errno
import hashlib
from collections.abc import Awaitable, Sequence
from io import FileIO
from pathlib import Path

from voiceforge.api.http.temp_files import RequestFiles
from voiceforge.errors import EmptyAudio, StorageFull, UploadTooLarge
from voiceforge.services.recordings import AudioBytes, AudioFile

FILE_FIELD = "file"
# What is smaller never touches the disk. One hop to a thread per MiB costs nothing next to the decode.
WRITE_BYTES = 1024 * 1024
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SMALL_PIECE_BYTES = 16 * 1024  # a body may come byte by byte; an object for each would weigh hundreds

Upload = AudioFile | AudioBytes
"""A recording that has fully arrived; a file is removed when the request is over."""


def upload_too_large(limit_bytes: int) -> UploadTooLarge:
    return UploadTooLarge(f"the upload is larger than {limit_bytes:,} bytes", field=FILE_FIELD)


class Spool:
    """Collects a recording and takes its digest: in memory while it is small, else written to a temp file
    in a thread, one MiB at a time."""

    def __init__(self, files: RequestFiles, limit_bytes: int, *, small_bytes: int = WRITE_BYTES - 1) -> None:
        """
        Args:
            small_bytes: up to so many stay in memory when all have come; where that is the limit, nothing is
                ever written.
        """
        self._files = files
        self._limit_bytes = limit_bytes
        self._small_bytes = small_bytes
        self._ended = False
        self._digest = hashlib.sha256()
        self._waiting = _Pieces()
        self._target: tuple[FileIO, Path] | None = None
        self._size_bytes = 0

    def take(self, data: bytes | memoryview) -> None:
        self._size_bytes += len(data)
        if self._size_bytes > self._limit_bytes:
            raise upload_too_large(self._limit_bytes)
        if self._target is None:
            self._digest.update(data)
        self._waiting.add(data)

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True

    def writing_if_full(self) -> Awaitable[None] | None:
        """To be awaited before more is taken; None where there is nothing to wait for."""
        most_bytes = WRITE_BYTES - 1
        if self._ended or self._small_bytes == self._limit_bytes:
            most_bytes = self._small_bytes
        return self._write() if self._waiting.size_bytes > most_bytes else None

    async def _write(self) -> None:
        pieces, self._waiting = self._waiting.all, _Pieces()
        try:
            if self._target is None:
                self._target = await self._files.create_off_loop()
                await asyncio.to_thread(_write_all, self._target[0], pieces)
            else:
                await asyncio.to_thread(_digest_and_write_all, self._digest, self._target[0], pieces)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise StorageFull("the server has no room for this upload", field=FILE_FIELD) from error
            raise

    async def finish(self) -> Upload:
        if self._size_bytes == 0:
            raise EmptyAudio("the upload is empty: it has 0 bytes", field=FILE_FIELD)
        if self._target is None and self._size_bytes <= self._small_bytes:
            return AudioBytes(tuple(self._waiting.all), self._digest.digest())
        if self._waiting.size_bytes:
            await self._write()
        assert self._target is not None
        file, path = self._target
        file.close()
        return AudioFile(path, self._digest.digest())


def spool_for(
    files: RequestFiles, limit_bytes: int, memory_bytes: int | None, small_bytes: int = WRITE_BYTES - 1
) -> Spool:
    if memory_bytes is None:
        return Spool(files, limit_bytes, small_bytes=small_bytes)
    limit_bytes = min(limit_bytes, memory_bytes)
    return Spool(files, limit_bytes, small_bytes=limit_bytes)


class _Pieces:
    """Bytes in the pieces they came in, without copying any but small ones."""

    def __init__(self) -> None:
        self.all: list[bytes | bytearray | memoryview] = []
        self.size_bytes = 0

    def add(self, data: bytes | memoryview) -> None:
        self.size_bytes += len(data)
        if len(data) >= _SMALL_PIECE_BYTES:
            self.all.append(data)
        elif self.all and isinstance(last := self.all[-1], bytearray):
            last += data
        else:
            self.all.append(bytearray(data))


def _write_all(file: FileIO, pieces: Sequence[bytes | bytearray | memoryview]) -> None:
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            rest = rest[file.write(rest) :]


def _digest_and_write_all(
    digest: hashlib._Hash, file: FileIO, pieces: Sequence[bytes | bytearray | memoryview]
) -> None:
    for piece in pieces:
        digest.update(piece)
    _write_all(file, pieces)
