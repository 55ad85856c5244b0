"""A file as the native decoders should see it: without its name, and with no seek that can fail.

By the name libav would guess the format; a failing seek, which damaged headers ask for, would be printed
to stderr by libsndfile's binding.
"""

from __future__ import annotations

import os
from typing import BinaryIO


class ForgivingFile:
    """Starts at the beginning. Seeks are held inside [0, size]. Closing it does nothing."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        file.seek(0)
        self._file, self._size = file, size
        self.read, self.tell = file.read, file.tell  # bound directly: they are called for every few KB
        if hasattr(file, "readinto"):
            self.readinto = file.readinto

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._size}[whence]
        return self._file.seek(min(max(0, start + offset), self._size))
