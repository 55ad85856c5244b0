"""When what was cleared, so that processes with caches of their own clear together.

Times are nanoseconds of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import zlib
from typing import Protocol

_SLOT_BYTES = 8


class Clearings(Protocol):
    """Cheap: asked with every look-up."""

    def last_ns(self) -> int:
        """When anything was cleared last; 0: never."""
        ...

    def cleared_ns(self, partition: str) -> int:
        """What was kept of a partition until then is gone; 0: nothing was ever cleared."""
        ...

    def clear(self, partition: str, now_ns: int) -> None: ...


class LocalClearings:
    """Of one process alone, whose cache needs no telling."""

    def last_ns(self) -> int:
        return 0

    def cleared_ns(self, partition: str) -> int:
        return 0

    def clear(self, partition: str, now_ns: int) -> None:
        return None


class SharedClearings:
    """In memory that several processes map, such as an inherited `mmap` or `multiprocessing.shared_memory`.

    One number for the last clearing, then a fixed number of slots; partitions that fall into the same slot
    are cleared together, which costs a miss. Every write is one aligned word, so no lock is needed.

    Args:
        memory: writable, a multiple of 8 bytes and at least 16, zeros in the beginning; the same in every
            process.
    """

    def __init__(self, memory: memoryview) -> None:
        self._words = memory.cast("B").cast("Q")
        if len(self._words) < 2:
            raise ValueError(f"{memory.nbytes} bytes are too few: at least {2 * _SLOT_BYTES} are needed")

    def last_ns(self) -> int:
        return self._words[0]

    def cleared_ns(self, partition: str) -> int:
        return self._words[self._slot(partition)]

    def clear(self, partition: str, now_ns: int) -> None:
        self._words[self._slot(partition)] = now_ns
        self._words[0] = now_ns  # afterwards: whoever sees it must find the slot

    def _slot(self, partition: str) -> int:
        return 1 + zlib.crc32(partition.encode()) % (len(self._words) - 1)
