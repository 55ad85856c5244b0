"""What work that broke off left in the folders of this machine: only its own processes can remove it."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from voiceforge.infra.blobs.base import Blobs
from voiceforge.services.chores import Chore
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)

_EVERY_S = 3600.0


@dataclass(frozen=True, slots=True)
class Removed:
    """How many temporary files and folders nobody works on, and puts into the store that broke off."""

    files: int = 0
    partial: int = 0


class Leftovers:
    """Args:
    temp_dir: of files that live as long as a request or a job.
    age_s: what has not been touched for so long belongs to nobody.
    clock: Unix seconds.
    """

    def __init__(
        self, *, temp_dir: Path, blobs: Blobs, age_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._temp_dir = temp_dir
        self._blobs = blobs
        self._age_s = age_s
        self._clock = clock

    def chores(self) -> tuple[Chore, ...]:
        """For each process; several may do it at a time."""
        return (Chore("remove_leftovers", _EVERY_S, self.remove),)

    async def remove(self) -> Removed:
        """Remove what is old.

        Raises:
            Unavailable
        """
        removed = Removed(
            files=await asyncio.to_thread(_remove_old, self._temp_dir, self._clock() - self._age_s),
            partial=await self._blobs.sweep_partial(self._age_s),
        )
        if removed != Removed():
            _log.warning("leftovers removed", files=removed.files, partial=removed.partial)
        return removed


def _remove_old(folder: Path, before: float) -> int:
    """Remove files and folders in `folder` that nobody has changed since `before`, Unix seconds; how many.
    Blocks."""
    count = 0
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            if path.lstat().st_mtime >= before:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError:  # somebody else was quicker, or it cannot be helped
            continue
        count += 1
    return count
