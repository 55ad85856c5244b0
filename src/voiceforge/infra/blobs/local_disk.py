"""Blobs as files in one folder of this machine, which several processes may share.

A blob grows under another name in `.partial/` and appears in one rename, after it and with it its folder's
entry is on the disk. No segment of a key begins with a dot, so the two never meet.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from itertools import islice
from pathlib import Path

from voiceforge.errors import BlobMissing
from voiceforge.infra.blobs.base import BLOCK_BYTES, BlobInfo, Content, check_key, check_prefix
from voiceforge.infra.blobs.content import blocks, verified
from voiceforge.infra.blobs.off_loop import disk_errors, drop_file, new_file, to_end, write_all

PARTIAL = ".partial"
_LISTED_AT_ONCE = 500
_PUBLISH_TRIES = 100


class LocalDiskBlobs:
    """See `Blobs`.

    Args:
        root: the folder, for nothing else; made when it is first needed, for this user only.
    """

    def __init__(self, root: Path, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._partial = root / PARTIAL
        self._wall_clock = wall_clock

    async def put(
        self, key: str, content: Content, *, sha256: bytes | None = None, take: bool = False
    ) -> BlobInfo:
        target = self._path(key)
        taken = content if take and isinstance(content, Path) else None
        if taken is not None:
            if sha256 is not None:
                async with aclosing(verified(blocks(taken), sha256)) as read:
                    async for _ in read:
                        pass
            if (moved := await self._move(taken, target)) is not None:
                return _told(key, moved)
        with disk_errors():
            handle, partial = await to_end(self._create, drop=drop_file)
        try:
            try:
                async with aclosing(verified(blocks(content), sha256)) as pieces:
                    async for piece in pieces:
                        with disk_errors():
                            await to_end(write_all, handle, piece)
                with disk_errors():
                    await to_end(os.fsync, handle)
            finally:
                os.close(handle)
            with disk_errors():
                stored = await to_end(self._publish, partial, target)
        finally:
            await to_end(lambda: partial.unlink(missing_ok=True))
        if taken is not None:
            await to_end(lambda: taken.unlink(missing_ok=True))
        return _told(key, stored)

    async def read(self, key: str, *, start: int = 0) -> AsyncGenerator[bytes, None]:
        path = self._path(key)
        if start < 0:
            raise ValueError("start is negative")
        with disk_errors():
            handle = await to_end(_open, path, drop=os.close)
            try:
                await to_end(os.lseek, handle, start, os.SEEK_SET)
                while piece := await to_end(os.read, handle, BLOCK_BYTES):
                    yield piece
            finally:
                os.close(handle)

    @asynccontextmanager
    async def at_path(self, key: str, folder: Path, *, sha256: bytes | None = None) -> AsyncIterator[Path]:
        if await self.info(key) is None:
            raise _missing()
        yield self._path(key)

    async def info(self, key: str) -> BlobInfo | None:
        path = self._path(key)
        with disk_errors():
            return await to_end(_info, key, path)

    async def delete(self, key: str) -> bool:
        path = self._path(key)
        with disk_errors():
            return await to_end(self._delete, path)

    async def list(self, prefix: str = "") -> AsyncGenerator[BlobInfo, None]:
        below = check_prefix(prefix)
        found = self._walk(self._root / below, f"{below}/" if below else "")
        while True:
            with disk_errors():
                some = await to_end(lambda: list(islice(found, _LISTED_AT_ONCE)))
            for info in some:
                yield info
            if len(some) < _LISTED_AT_ONCE:
                return

    async def download_url(self, key: str, *, expires_s: float, filename: str | None = None) -> str | None:
        check_key(key)
        return None

    async def upload_url(self, key: str, *, expires_s: float) -> str | None:
        check_key(key)
        return None

    async def sweep_partial(self, older_than_s: float) -> int:
        with disk_errors():
            return await to_end(self._sweep, self._wall_clock() - older_than_s)

    async def check(self) -> None:
        with disk_errors():
            await to_end(self._try_writing)

    async def close(self) -> None:
        pass

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _create(self) -> tuple[int, Path]:
        _make_folders(self._partial, self._root.parent)
        return new_file(self._partial)

    async def _move(self, source: Path, target: Path) -> os.stat_result | None:
        """None where it lies on another file system."""

        def seal() -> None:
            with source.open("rb") as file:
                os.fsync(file.fileno())
            os.utime(source)  # what it tells is when it was stored

        def move() -> os.stat_result | None:
            _make_folders(self._root, self._root.parent)
            try:
                return self._publish(source, target)
            except OSError as error:
                if error.errno == errno.EXDEV:
                    return None
                raise

        await to_end(seal)
        with disk_errors():
            return await to_end(move)

    def _publish(self, partial: Path, target: Path) -> os.stat_result:
        stored = partial.stat()
        for tried in range(_PUBLISH_TRIES):
            try:
                _make_folders(target.parent, self._root)
                partial.replace(target)
                break
            except FileNotFoundError:
                # A delete took away the empty folder in between, or somebody the file.
                if tried + 1 == _PUBLISH_TRIES or not partial.exists():
                    raise
            except (IsADirectoryError, NotADirectoryError):
                raise ValueError("one key is the folder of another") from None
        for folder in _upwards(target.parent, self._root):
            _sync_folder(folder)
        return stored

    def _delete(self, path: Path) -> bool:
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False
        _sync_folder(path.parent)
        for folder in _upwards(path.parent, self._root):
            if folder == self._root:
                break
            try:
                folder.rmdir()
            except OSError:  # not empty, or somebody else was quicker
                break
        return True

    def _walk(self, folder: Path, prefix: str) -> Iterator[BlobInfo]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(folder / entry.name, f"{prefix}{entry.name}/")
            elif (info := _info(f"{prefix}{entry.name}", folder / entry.name)) is not None:
                yield info

    def _sweep(self, before: float) -> int:
        removed = 0
        for path in self._partial.iterdir() if self._partial.is_dir() else ():
            try:
                if path.stat().st_mtime <= before:
                    path.unlink()
                    removed += 1
            except FileNotFoundError:
                continue
        return removed

    def _try_writing(self) -> None:
        made = self._create()
        try:
            write_all(made[0], b"x")
        finally:
            drop_file(made)


def _missing() -> BlobMissing:
    return BlobMissing("what was stored here is not there any more")


def _open(path: Path) -> int:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise _missing() from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _missing()
    return handle


def _info(key: str, path: Path) -> BlobInfo | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _told(key, found) if stat.S_ISREG(found.st_mode) else None


def _told(key: str, found: os.stat_result) -> BlobInfo:
    return BlobInfo(key, found.st_size, found.st_mtime)


def _upwards(folder: Path, top: Path) -> Iterator[Path]:
    """The folder and those above it, up to and with `top`."""
    yield folder
    while folder != top:
        folder = folder.parent
        yield folder


def _make_folders(folder: Path, top: Path) -> None:
    """Everything below `top` for this user only; `top` and what is above it as usual."""
    top.mkdir(parents=True, exist_ok=True)
    for below in reversed([step for step in _upwards(folder, top) if step != top]):
        # Not `exist_ok`: it looks once more, and takes a folder that is gone by then for a file.
        with suppress(FileExistsError):
            below.mkdir(mode=0o700)


def _sync_folder(folder: Path) -> None:
    """A rename survives a power cut only once its folder is written."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:  # emptied and removed by a delete
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
