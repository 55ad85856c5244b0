"""Uploads that come in pieces over several requests, and are taken up again wherever they broke off.

What is here is what the database says: it is told after the bytes are on the disk. The bytes lie in one file
each, in a folder that all processes share. Of several requests that bring more of the same upload, the last
one has its turn: an earlier one may hang on a connection that nobody is at the other end of any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from voiceforge.errors import Conflict, EmptyAudio, InvalidRequest
from voiceforge.infra.blobs.growing_file import FileBusy, FileIncomplete, GrowingFile
from voiceforge.infra.blobs.off_loop import disk_errors, to_end
from voiceforge.infra.db import uploads as rows
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.ids import new_id, new_token
from voiceforge.infra.db.records import Upload
from voiceforge.services.access import Caller, Scope
from voiceforge.services.chores import Chore
from voiceforge.services.recordings import AudioFile, file_digest
from voiceforge.services.upload_turn import Checksum, Turn, no_such_upload, upload_too_large
from voiceforge.telemetry.logger import Logger

# What callers need of the room below, which surfaces do not see.
__all__ = ["Upload", "Uploaded", "Uploads"]

_log = Logger(__name__)

_LOOK_S = 0.5
_TURN_S = 10.0
"""The longest wait for an earlier request to end."""
_USED_S = 3600.0
"""A used upload stays so long, for a request that is made again because its answer was lost."""
_SWEEP_EVERY_S = 300.0
_SWEPT_AT_ONCE = 100
_STRAY_AGE_S = 600.0
"""A file that nobody wrote to for so long, and that no upload knows."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A finished upload as a recording; the file is gone when its block ends."""

    audio: AudioFile
    filename: str | None


class Uploads:
    """Args:
    folder: for nothing else; shared by all processes that serve the same uploads.
    temp_dir: on the same file system, so that nothing need be copied.
    expire_s: from the beginning of an upload.
    idle_s: a request that brings nothing for so long ends.
    clock: Unix seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        folder: Path,
        temp_dir: Path,
        max_bytes: int,
        expire_s: float = 86_400.0,
        idle_s: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.max_bytes = max_bytes
        self._database = database
        self._folder = folder
        self._temp_dir = temp_dir
        self._expire_s = expire_s
        self._idle_s = idle_s
        self._clock = clock

    async def create(
        self, caller: Caller, length_bytes: int, *, metadata: str | None = None, filename: str | None = None
    ) -> Upload:
        """
        Raises:
            UploadTooLarge, Unavailable
        """
        tenant = caller.needs(Scope.TRANSCRIBE)
        if length_bytes > self.max_bytes:
            raise upload_too_large(self.max_bytes)
        now = self._clock()
        upload = Upload(
            id=new_id("up", now),
            tenant=tenant,
            length_bytes=length_bytes,
            offset_bytes=0,
            metadata=metadata,
            filename=filename,
            sha256=None,
            writer=None,
            created_at=now,
            expires_at=now + self._expire_s,
            user_id=caller.user_id,
        )
        async with self._database.transaction() as connection:
            await rows.add(connection, upload)
        return upload

    async def find(self, caller: Caller, upload_id: str) -> Upload:
        """As it stands in the database.

        Raises:
            NotFound, Unavailable
        """
        tenant = caller.needs(Scope.TRANSCRIBE)
        return await self._get(tenant, upload_id)

    async def show(self, caller: Caller, upload_id: str) -> Upload:
        """How much is here. A request that is bringing more has to end first: its client has lost it, or it
        would not ask.

        Raises:
            NotFound, Unavailable
        """
        tenant = caller.needs(Scope.TRANSCRIBE)
        upload = await self._get(tenant, upload_id)
        if upload.writer is None:
            return upload
        writer = new_token()
        await self._take_turn(upload_id, writer)
        with contextlib.suppress(Conflict):  # then it is what is safe by now
            (await self._open(tenant, upload_id)).close()
        await self._end_turn(upload_id, writer)
        return await self._get(tenant, upload_id)

    async def append(
        self,
        caller: Caller,
        upload_id: str,
        offset_bytes: int,
        pieces: AsyncIterator[bytes],
        *,
        declared_bytes: int | None = None,
        checksum: Checksum | None = None,
    ) -> Upload:
        """Add what the pieces bring. What came before they broke off stays, unless there is a checksum.

        Args:
            offset_bytes: where they belong.
            declared_bytes: how many they will be, where that is known.

        Raises:
            NotFound, Unavailable, StorageFull
            Conflict: they do not belong where it ends now; or a later request has taken over.
            UploadTooLarge: they are more than the upload is to have.
            ChecksumMismatch: none of them was added.
            InvalidRequest: nothing came for too long.
            Exception: what the pieces raise.
        """
        tenant = caller.needs(Scope.TRANSCRIBE)
        upload = await self._get(tenant, upload_id)
        if upload.is_complete:
            _check_fits(upload, offset_bytes, declared_bytes or 0)
            return upload
        writer = new_token()
        await self._take_turn(upload_id, writer)
        file = await self._open(tenant, upload_id)
        try:
            upload = await self._get(tenant, upload_id)
            _check_fits(upload, offset_bytes, declared_bytes or 0)
            turn = Turn(self._database, upload, writer, file, checksum)
            await self._receive(turn, pieces)
        finally:
            await asyncio.shield(self._let_go(upload_id, writer, file))
        return replace(upload, offset_bytes=turn.saved_bytes, writer=None)

    async def _receive(self, turn: Turn, pieces: AsyncIterator[bytes]) -> None:
        broken = True
        coming: asyncio.Future[bytes | None] | None = None
        try:
            idle_since = time.monotonic()
            while True:
                coming = asyncio.ensure_future(_next(pieces))
                while not (await asyncio.wait({coming}, timeout=_LOOK_S))[0]:
                    await turn.insist()
                    if time.monotonic() - idle_since > self._idle_s:
                        raise InvalidRequest(f"the upload brought nothing for {self._idle_s:g} s")
                piece = coming.result()
                if piece is None:
                    break
                await turn.take(piece)
                idle_since = time.monotonic()
            broken = False
        finally:
            if coming is not None and not coming.done():
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
            if broken:
                await turn.save_what_came()
        await turn.finish()

    async def remove(self, caller: Caller, upload_id: str) -> None:
        """
        Raises:
            NotFound, Unavailable
        """
        tenant = caller.needs(Scope.TRANSCRIBE)
        await self._get(tenant, upload_id)
        await self._take_turn(upload_id, new_token())
        await self._forget(upload_id)

    @contextlib.asynccontextmanager
    async def source(self, caller: Caller, upload_id: str, *, keep: bool = True) -> AsyncIterator[Uploaded]:
        """A finished upload, to be transcribed while the block runs. Where that goes well, the upload is gone
        soon after, so that the same request may come once more; at once where it is not to be kept.

        Raises:
            NotFound, Unavailable, EmptyAudio
            Conflict: it is not finished.
        """
        tenant = caller.needs(Scope.TRANSCRIBE)
        upload = await self._get(tenant, upload_id)
        if not upload.is_complete:
            raise Conflict(
                f"this upload is not finished: {upload.offset_bytes:,} of {upload.length_bytes:,} bytes "
                "are here",
                field="upload_id",
            )
        if upload.length_bytes == 0:
            raise EmptyAudio("the upload is empty: it has 0 bytes", field="upload_id")
        path = await to_end(self._link, upload_id, drop=_unlink)
        try:
            sha256 = await self._digest(upload, path)
            yield Uploaded(AudioFile(path, sha256), upload.filename)
        finally:
            await to_end(_unlink, path)
        if keep:
            async with self._database.transaction() as connection:
                await rows.expire_by(connection, upload_id, self._clock() + _USED_S)
        else:
            await self._forget(upload_id)

    async def _digest(self, upload: Upload, path: Path) -> bytes:
        if upload.sha256 is not None:
            return bytes.fromhex(upload.sha256)
        sha256 = await asyncio.to_thread(file_digest, path)
        async with self._database.transaction() as connection:
            await rows.note_digest(connection, upload.id, sha256.hex())
        return sha256

    def _link(self, upload_id: str) -> Path:
        """Another name of the file, or a copy where there can be none. Blocks."""
        name = Path(tempfile.mktemp(dir=self._temp_dir, prefix="upload-", suffix=".part"))  # noqa: S306
        try:
            try:
                os.link(self._folder / upload_id, name)
            except FileNotFoundError:
                raise no_such_upload() from None
            except OSError:
                with disk_errors():
                    shutil.copyfile(self._folder / upload_id, name)
            os.utime(name)  # or it would seem left over
        except BaseException:
            name.unlink(missing_ok=True)
            raise
        return name

    def chores(self) -> tuple[Chore, ...]:
        """To be done by one process at a time."""
        return (Chore("sweep_uploads", _SWEEP_EVERY_S, self.sweep),)

    def own_chores(self) -> tuple[Chore, ...]:
        """To be done by each process."""
        return (Chore("remove_stray_uploads", _SWEEP_EVERY_S, self.remove_strays),)

    async def sweep(self) -> int:
        """Forget expired uploads, with their files where those are here; how many.

        Raises:
            Unavailable
        """
        count = 0
        while True:
            async with self._database.reading() as connection:
                gone = await rows.expired(connection, self._clock(), _SWEPT_AT_ONCE)
            for upload_id in gone:
                await self._forget(upload_id)
            count += len(gone)
            if not gone:
                break
        if count:
            _log.info("expired uploads removed", count=count)
        return count

    async def remove_strays(self) -> int:
        """Remove files here of uploads that were forgotten, by whichever machine; how many.

        Raises:
            Unavailable
        """
        count = 0
        found = await asyncio.to_thread(_unchanged_since, self._folder, self._clock() - _STRAY_AGE_S)
        for start in range(0, len(found), _SWEPT_AT_ONCE):
            some = found[start : start + _SWEPT_AT_ONCE]
            async with self._database.reading() as connection:
                known = await rows.known(connection, [path.name for path in some])
            for path in some:
                if path.name not in known:
                    with disk_errors():
                        await to_end(_unlink, path)
                    count += 1
        if count:
            _log.warning("files of forgotten uploads removed", count=count)
        return count

    async def forget(self, upload_id: str) -> None:
        """Whoever's it is. What cannot be removed here, other machines remove soon.

        Raises:
            Unavailable
        """
        await self._take_turn(upload_id, new_token())
        await self._forget(upload_id)

    async def _forget(self, upload_id: str) -> None:
        async with self._database.transaction() as connection:
            await rows.forget(connection, upload_id)
        with disk_errors():
            await to_end(_unlink, self._folder / upload_id)

    async def _get(self, tenant: str, upload_id: str) -> Upload:
        async with self._database.reading() as connection:
            upload = await rows.get(connection, tenant, upload_id)
        if upload is None or upload.expires_at <= self._clock():
            raise no_such_upload()
        return upload

    async def _take_turn(self, upload_id: str, writer: str) -> None:
        async with self._database.transaction() as connection:
            await rows.take_turn(connection, upload_id, writer)

    async def _end_turn(self, upload_id: str, writer: str) -> None:
        async with self._database.transaction() as connection:
            await rows.end_turn(connection, upload_id, writer)

    async def _let_go(self, upload_id: str, writer: str, file: GrowingFile) -> None:
        try:
            await self._end_turn(upload_id, writer)
        finally:
            await to_end(file.close)

    async def _open(self, tenant: str, upload_id: str) -> GrowingFile:
        """Its file, once an earlier request has let go of it."""
        until = time.monotonic() + _TURN_S
        while True:
            upload = await self._get(tenant, upload_id)
            try:
                with disk_errors():
                    return await to_end(
                        self._open_now, upload_id, upload.offset_bytes, drop=GrowingFile.close
                    )
            except FileIncomplete:
                # The row may be newer than our look at it was; else bytes were lost.
                if (await self._get(tenant, upload_id)).offset_bytes == upload.offset_bytes:
                    raise no_such_upload() from None
            except FileBusy:
                if time.monotonic() > until:
                    raise Conflict("another request is bringing this upload; ask again where it is") from None
                await asyncio.sleep(0.05)

    def _open_now(self, upload_id: str, size_bytes: int) -> GrowingFile:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return GrowingFile(self._folder / upload_id, size_bytes)


def _check_fits(upload: Upload, offset_bytes: int, declared_bytes: int) -> None:
    if offset_bytes != upload.offset_bytes:
        raise Conflict(f"this upload goes on at byte {upload.offset_bytes}", field="Upload-Offset")
    if offset_bytes + declared_bytes > upload.length_bytes:
        raise upload_too_large(upload.length_bytes)


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)


def _unchanged_since(folder: Path, before: float) -> list[Path]:
    """Files in it. Blocks."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and path.lstat().st_mtime < before:
                found.append(path)
    return found


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
