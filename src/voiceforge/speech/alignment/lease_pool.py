"""A bounded set of things that are dear to make and can serve one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class LeasePool(Generic[T]):
    """Makes at most `size` items, each when it is first needed; a lease waits for a free one."""

    def __init__(self, make: Callable[[], T], size: int) -> None:
        self._make = make
        self._free = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[T] = []

    @contextmanager
    def lease(self) -> Iterator[T]:
        """Lend an item. One whose user raised is dropped, for its state is not known."""
        with self._free:
            with self._lock:
                item = self._idle.pop() if self._idle else None
            if item is None:
                item = self._make()
            yield item
            with self._lock:
                self._idle.append(item)

    def drop_idle(self) -> None:
        """Forget every item nobody holds."""
        with self._lock:
            self._idle.clear()
