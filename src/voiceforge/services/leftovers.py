"""Temporary files whose process is gone."""

from __future__ import annotations

import shutil
from pathlib import Path


def remove_old(folder: Path, before: float) -> int:
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
