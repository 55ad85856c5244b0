"""So many may work at once; the others wait for a place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Places:
    """Thread-safe."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._changed = threading.Condition()

    @contextmanager
    def one(self, stop: Callable[[], None]) -> Iterator[None]:
        """Wait for a place, and keep it while the block runs.

        Args:
            stop: raises once nobody wants the place any more; asked again after `wake`.
        """
        with self._changed:
            try:
                while not self._free:
                    stop()
                    self._changed.wait()
                stop()
            except BaseException:
                self._changed.notify()  # this one may have been woken for a place
                raise
            self._free -= 1
        try:
            yield
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify()

    def wake(self) -> None:
        """Whoever waits looks again whether it should."""
        with self._changed:
            self._changed.notify_all()
