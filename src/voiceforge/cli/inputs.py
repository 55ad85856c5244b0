"""What stands on the command line → recordings: files, folders' contents, URLs, standard input."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from voiceforge.errors import VoiceForgeError

# Only chooses inside folders; what a file really holds is found out when it is read.
_SUFFIXES = (
    ".3g2 .3gp .aac .ac3 .aif .aifc .aiff .alac .amr .asf .au .avi .awb .caf .f4v .flac .flv .gsm .m2ts .m4a "
    ".m4b .m4v .mka .mkv .mov .mp2 .mp3 .mp4 .mpeg .mpg .mpga .mts .oga .ogg .ogv .opus .snd .spx .ts .vob "
    ".w64 .wav .wave .weba .webm .wma .wmv .wv"
)
RECORDING_SUFFIXES = frozenset(_SUFFIXES.split())
STDIN = "-"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Recording:
    """One thing to transcribe.

    label: how messages name it.
    stem: what its output file is called, without extension.
    place: its file or URL; None: standard input.
    folder: below which subfolder of the output it belongs; None: it was named itself, not found in a folder.
    """

    label: str
    stem: str
    place: Path | str | None
    folder: PurePosixPath | None = None


@dataclass(frozen=True, slots=True)
class Unusable:
    """An argument that brings no recording, and why."""

    label: str
    reason: str


def is_url(argument: str) -> bool:
    return _URL.match(argument) is not None


def find_recordings(arguments: Sequence[str]) -> Iterator[Recording | Unusable]:
    """In the order given; folders are searched to their bottom, in the order of names."""
    for argument in arguments:
        if argument == STDIN:
            yield Recording("stdin", "stdin", None)
        elif is_url(argument):
            yield Recording(argument, _url_stem(argument), argument)
        else:
            yield from _on_disk(argument)


def _on_disk(argument: str) -> Iterator[Recording | Unusable]:
    path = Path(argument).expanduser()
    try:
        if path.is_dir():
            yield from _in_folder(argument, path)
        elif path.exists():
            yield Recording(argument, path.stem, path)
        else:
            yield Unusable(argument, "no such file or folder")
    except OSError as error:
        yield Unusable(argument, error.strerror or "cannot be read")


def _in_folder(argument: str, folder: Path) -> Iterator[Recording | Unusable]:
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in RECORDING_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not found:
        yield Unusable(argument, "no audio or video files inside")
    for path in found:
        below = PurePosixPath(path.relative_to(folder).parent.as_posix())
        yield Recording(str(Path(argument) / path.relative_to(folder)), path.stem, path, below)


def _url_stem(url: str) -> str:
    parts = urlsplit(url)
    return PurePosixPath(unquote(parts.path)).stem or parts.hostname or "url"


def spool_stdin(target: Path) -> None:
    """Copy all of standard input into a file.

    Raises:
        VoiceForgeError: there is no room for it.
    """
    try:
        # Past Python's buffer, whose lock would hold up the end of a process that stopped waiting for input.
        with os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0) as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
    except OSError as error:
        raise VoiceForgeError(f"standard input could not be kept: {error.strerror}") from error
