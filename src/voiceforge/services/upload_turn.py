"""One request's part of an upload in pieces: written to its file, then told to the database."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

from voiceforge.errors import ChecksumMismatch, Conflict, NotFound, UploadTooLarge
from voiceforge.infra.blobs.growing_file import GrowingFile
from voiceforge.infra.blobs.off_loop import disk_errors, to_end
from voiceforge.infra.db import uploads as rows
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.records import Upload
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)

_WRITE_BYTES = 1 << 20
_SAVE_BYTES = 8 << 20
"""So much, at most, has to be sent again after a crash."""
CHECKSUMS = ("sha1", "sha256", "md5")


@dataclass(frozen=True, slots=True)
class Checksum:
    """Of one request's bytes. algorithm: one of CHECKSUMS."""

    algorithm: str
    digest: bytes


class Turn:
    """One request's part of an upload."""

    def __init__(
        self, database: Database, upload: Upload, writer: str, file: GrowingFile, checksum: Checksum | None
    ) -> None:
        self._database = database
        self._upload = upload
        self._writer = writer
        self._file = file
        self._checksum = checksum
        self._digest = None if checksum is None else hashlib.new(checksum.algorithm, usedforsecurity=False)
        self._held = bytearray()
        self._written_bytes = upload.offset_bytes
        self.saved_bytes = upload.offset_bytes

    async def take(self, piece: bytes) -> None:
        if self._written_bytes + len(self._held) + len(piece) > self._upload.length_bytes:
            raise upload_too_large(self._upload.length_bytes)
        self._held += piece
        if len(self._held) >= _WRITE_BYTES:
            await self._write()
        if self._checksum is None and self._written_bytes - self.saved_bytes >= _SAVE_BYTES:
            await self.insist()
            await self._save()

    async def insist(self) -> None:
        """
        Raises:
            Conflict: a later request wants its turn.
        """
        async with self._database.reading() as connection:
            if not await rows.has_turn(connection, self._upload.id, self._writer):
                raise Conflict("another request has taken this upload over")

    async def save_what_came(self) -> None:
        """Whatever ended it."""
        if self._checksum is None:
            try:
                await asyncio.shield(self._write_and_save())
            except Exception as error:
                _log.warning("upload not saved to its end", problem=type(error).__name__)

    async def finish(self) -> None:
        await self._write()
        if (
            self._checksum is not None
            and self._digest is not None
            and self._digest.digest() != self._checksum.digest
        ):
            raise ChecksumMismatch("what came does not have the checksum that was given for it")
        await self._save()

    async def _write_and_save(self) -> None:
        try:
            await self._write()
        finally:  # what was written before stays, also where there was no room for the rest
            await self._save()

    async def _write(self) -> None:
        data, self._held = self._held, bytearray()
        with disk_errors():
            await to_end(self._file.write, data, self._digest)
        self._written_bytes += len(data)

    async def _save(self) -> None:
        if self._written_bytes == self.saved_bytes:
            return
        with disk_errors():
            await to_end(self._file.sync)
        async with self._database.transaction() as connection:
            if not await rows.advance(connection, self._upload.id, self._written_bytes):
                raise no_such_upload()
        self.saved_bytes = self._written_bytes


def upload_too_large(limit_bytes: int) -> UploadTooLarge:
    return UploadTooLarge(f"the upload is larger than {limit_bytes:,} bytes")


def no_such_upload() -> NotFound:
    return NotFound("there is no such upload, or its time is over")
