"""Recordings as they come to us: where the bytes are, and their digest where it is known already."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from voiceforge.errors import UnreadableAudio

_READ_BYTES = 1 << 20
AUDIO_PREFIX = "audio"
"""Below it stand the blobs of recordings, by the recordings' ids."""


@dataclass(frozen=True, slots=True)
class UrlSource:
    """A recording to be fetched first."""

    url: str


@dataclass(frozen=True, slots=True)
class AudioFile:
    """A file here that lasts as long as the request. sha256: of its content."""

    path: Path
    sha256: bytes


@dataclass(frozen=True, slots=True)
class AudioBytes:
    """A recording in memory. pieces: its bytes in order, not to be changed any more; sha256: of all."""

    pieces: tuple[bytes | bytearray | memoryview, ...] = field(repr=False)
    sha256: bytes

    def joined(self) -> bytes:
        return b"".join(self.pieces)


LocalSource = Path | AudioFile | AudioBytes
Source = LocalSource | UrlSource


def content_of(source: LocalSource) -> Path | bytes:
    """Where to read it, or what would be read."""
    match source:
        case AudioBytes():
            return source.joined()
        case AudioFile():
            return source.path
        case _:
            return source


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file's content; blocking.

    Raises:
        UnreadableAudio: it cannot be opened or read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
    except OSError as error:
        raise UnreadableAudio(f"the file cannot be read: {error.strerror}") from None
    return digest.digest()
