"""Holding an engine still from outside, in whatever process it lives: by two named pipes in a folder.

test                               engine
Hold(folder).prompt ─▶ a window ─▶ stand_still(prompt): "I began" ─▶ waits
wait_until_held()  ◀──────────────┘
release()          ───────────────────────────────────────────────▶ goes on
"""

from __future__ import annotations

import os
import select
from pathlib import Path

_WORD = "hold:"
_BEGAN, _GO = "began", "go"
_LONGEST_WAIT_S = 20.0


class Hold:
    """Engines that `stand_still` over its prompt do so until released; those that come later go right on.

    Args:
        folder: exists; two pipes are made in it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in (_BEGAN, _GO):
            os.mkfifo(folder / name)
        # Open for both, so that nobody who writes waits for a reader.
        self._began = os.open(folder / _BEGAN, os.O_RDWR | os.O_NONBLOCK)
        self._go: int | None = None

    @property
    def prompt(self) -> str:
        """For `DecodeOptions`."""
        return _WORD + str(self._folder)

    def wait_until_held(self, count: int = 1) -> None:
        """So many more decodes stand still.

        Raises:
            TimeoutError: they do not.
        """
        for _ in range(count):
            if not select.select([self._began], [], [], _LONGEST_WAIT_S)[0]:
                raise TimeoutError("the engine did not begin with what was to be held")
            os.read(self._began, 1)

    def release(self) -> None:
        """For all, and for good. Idempotent."""
        if self._go is None:
            self._go = os.open(self._folder / _GO, os.O_RDWR)

    def close(self) -> None:
        """Release, and give the pipes back."""
        self.release()
        for descriptor in (self._began, self._go):
            if descriptor is not None:
                os.close(descriptor)


def stand_still(prompt: str | None) -> None:
    """For engines: wait if this is the prompt of a `Hold`."""
    if prompt is None or not prompt.startswith(_WORD):
        return
    folder = Path(prompt.removeprefix(_WORD))
    with (folder / _BEGAN).open("wb", buffering=0) as began:
        began.write(b".")
    os.close(os.open(folder / _GO, os.O_RDONLY))  # opens once somebody has opened it for writing
