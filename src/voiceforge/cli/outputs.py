"""Where results go: names that never collide, files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from voiceforge.cli.inputs import Recording
from voiceforge.errors import VoiceForgeError

# File systems count bytes, 255 of them; the rest is for number, extension and the name while it is written.
_LONGEST_STEM_BYTES = 200
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


def output_paths(recordings: Sequence[Recording], folder: Path, extension: str) -> list[Path]:
    """One path per recording, in order, all different, none of them a recording itself.

    Recordings whose stems would collide keep their whole file name (`a.wav.txt`, `a.mp3.txt`), and get
    a number if that is not enough.
    """
    plain = [_place(recording, safe_name(recording.stem), extension) for recording in recordings]
    how_often = Counter(_key(path) for path in plain)
    taken = {_key(folder / path) for path in plain if how_often[_key(path)] == 1}
    inputs = {_key(item.place.absolute()) for item in recordings if isinstance(item.place, Path)}
    chosen = []
    for recording, path in zip(recordings, plain, strict=True):
        target = folder / path
        if how_often[_key(path)] > 1 or _key(target.absolute()) in inputs:
            target = _free(recording, folder, extension, taken | inputs)
            taken.add(_key(target))
        chosen.append(target)
    return chosen


def safe_name(name: str) -> str:
    """A file name without separators, control characters and a leading dot, and not too long."""
    cleaned = _UNSAFE.sub("_", name).strip(" .")
    short = cleaned.encode("utf-8", "surrogateescape")[:_LONGEST_STEM_BYTES].decode("utf-8", "ignore")
    return short.rstrip() or "recording"


def write_whole(path: Path, text: str) -> None:
    """Write UTF-8 text so that nobody ever sees half of it; folders are made.

    Raises:
        VoiceForgeError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".voiceforge-", suffix=".part")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
                file.write(text)
            Path(name).chmod(0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise VoiceForgeError(f"{path} cannot be written: {error.strerror}") from error


def _place(recording: Recording, stem: str, extension: str) -> PurePosixPath:
    return (recording.folder or PurePosixPath()) / f"{stem}.{extension}"


def _free(recording: Recording, folder: Path, extension: str, taken: set[str]) -> Path:
    full = recording.place.name if isinstance(recording.place, Path) else recording.stem
    number = 1
    while True:
        stem = safe_name(full) + (f"-{number}" if number > 1 else "")
        target = folder / _place(recording, stem, extension)
        if _key(target) not in taken and _key(target.absolute()) not in taken:
            return target
        number += 1


def _key(path: PurePosixPath | Path) -> str:
    """Equal for names that some file systems take for the same."""
    return str(path).casefold()


def _umask() -> int:
    """mkstemp makes private files; results get the mode that any new file of the user's has."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
