"""A file that grows by one process at a time, from where its owner knows it to be whole."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

from voiceforge.infra.blobs.off_loop import write_all


class FileBusy(Exception):
    """Another process, or another task of this one, has it open."""


class FileIncomplete(Exception):
    """It holds less than was safely in it: somebody else was at it."""


class GrowingFile:
    """Every method blocks. What a killed process had written beyond the last `sync` is cut off when it is
    opened next; its lock ends with it.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        """Open it, made where it is not there, with its first `size_bytes`.

        Raises:
            FileBusy, FileIncomplete, OSError
        """
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(self._handle).st_size < size_bytes:
                raise FileIncomplete
            os.ftruncate(self._handle, size_bytes)
            os.lseek(self._handle, size_bytes, os.SEEK_SET)
        except BlockingIOError:
            os.close(self._handle)
            raise FileBusy from None
        except BaseException:
            os.close(self._handle)
            raise

    def write(self, data: bytes | bytearray, digest: hashlib._Hash | None = None) -> None:
        if digest is not None:
            digest.update(data)
        write_all(self._handle, bytes(data))

    def sync(self) -> None:
        """What was written survives a power cut."""
        os.fdatasync(self._handle)

    def close(self) -> None:
        os.close(self._handle)
