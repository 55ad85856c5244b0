"""Work with files beside the event loop, and what the disk's refusals mean."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

from voiceforge.errors import StorageFull, Unavailable

T = TypeVar("T")

COMES_BACK_S = 5.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


async def to_end(work: Callable[..., T], *given: object, drop: Callable[[T], object] | None = None) -> T:
    """Run it in a thread. When cancelled, wait until the thread is done all the same: it may hold a file that
    the caller closes or removes next.

    Args:
        drop: gets rid of a result that arrives when nobody waits for it any more.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work, *given))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                continue  # cancelled once more; the first one is raised below
        if task.exception() is None and drop is not None:
            drop(task.result())
        raise


@contextmanager
def disk_errors() -> Iterator[None]:
    """Of calls on the store's files, not of the source's: both raise OSError."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull("there is no room left where this should be stored") from error
        raise Unavailable(
            f"the store can't be used: {error.strerror or 'disk error'}", retry_after_s=COMES_BACK_S
        ) from error


def new_file(folder: Path) -> tuple[int, Path]:
    """An empty file for this user only, open for writing."""
    handle, name = tempfile.mkstemp(dir=folder, prefix="blob-", suffix=".part")
    return handle, Path(name)


def drop_file(made: tuple[int, Path]) -> None:
    handle, path = made
    os.close(handle)
    path.unlink(missing_ok=True)


def write_all(handle: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(handle, rest) :]


@asynccontextmanager
async def fetched(pieces: AsyncGenerator[bytes, None], folder: Path) -> AsyncIterator[Path]:
    """A file in `folder` with these pieces, while the block runs."""
    with disk_errors():
        handle, path = await to_end(new_file, folder, drop=drop_file)
    try:
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    with disk_errors():
                        await to_end(write_all, handle, piece)
        finally:
            os.close(handle)
        yield path
    finally:
        await to_end(lambda: path.unlink(missing_ok=True))
