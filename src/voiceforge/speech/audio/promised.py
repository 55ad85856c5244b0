"""What WAV and MP3 headers promise about their own length, held against the bytes that are there.

The libraries quietly clamp or guess; a caller should hear that half of the recording is missing.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

_UNSET_WAV_SIZES = frozenset({0, 0x7FFFFFFF, 0x80000000})
_UNSET_WAV_SIZES_FROM = 0x7FFF0000 * 2
"""Writers that cannot seek back leave 0xFFFFFFFF, or that less a header (ffmpeg, sox, browsers)."""
_TRAILING_SHARE = 0.01
"""A short tag may follow the last MP3 frame; where more does, mpg123 would complain on stderr."""
_XING_HAS_FRAMES, _XING_HAS_BYTES = 0x1, 0x2


def wav_is_cut(file: BinaryIO, size: int) -> bool:
    """Whether a WAV's data chunk is longer than the file. Moves the file position."""
    start, length = _wav_data(file, size)
    promises = length not in _UNSET_WAV_SIZES and length < _UNSET_WAV_SIZES_FROM
    return promises and start + length > size


def wav_runs_to_its_end(file: BinaryIO, size: int) -> bool:
    """Whether a WAV declares no samples and yet has bytes where they would be. Moves the file position."""
    start, length = _wav_data(file, size)
    return length == 0 and 0 < start < size


def _wav_data(file: BinaryIO, size: int) -> tuple[int, int]:
    """Where the data chunk's content starts, and its declared length; (0, 0) without one."""
    file.seek(0)
    if file.read(4) != b"RIFF":
        return 0, 0
    at = 12
    while at + 8 <= size:
        file.seek(at)
        chunk, length = struct.unpack("<4sI", file.read(8))
        if chunk == b"data":
            return at + 8, length
        at += 8 + length + (length & 1)
    return 0, 0


def mp3_end(file: BinaryIO) -> int | None:
    """Where the first frame's Xing or Info header says the MP3 ends; None without one. Moves the position."""
    start = _after_id3(file)
    file.seek(start)
    frame = file.read(256)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0 or len(frame) < at + 16:
        return None
    flags, first, second = struct.unpack_from(">III", frame, at + 4)
    if not flags & _XING_HAS_BYTES:
        return None
    return start + int(second if flags & _XING_HAS_FRAMES else first)


def mp3_is_cut(file: BinaryIO, size: int) -> bool:
    end = mp3_end(file)
    return end is not None and end > size


def mp3_is_whole(file: BinaryIO, size: int) -> bool:
    """The header's length and the file's agree: nothing is missing, nothing was joined on."""
    end = mp3_end(file)
    return end is not None and end <= size <= end * (1 + _TRAILING_SHARE)


def _after_id3(file: BinaryIO) -> int:
    file.seek(0)
    tag = file.read(10)
    if len(tag) < 10 or tag[:3] != b"ID3":
        return 0
    length = 0
    for byte in tag[6:10]:  # seven bits each
        length = length << 7 | (byte & 0x7F)
    footer = 10 if tag[5] & 0x10 else 0
    return 10 + length + footer
