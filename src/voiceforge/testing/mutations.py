"""Damage for fuzz tests: recordings and forms with bytes flipped, cut, doubled and put in."""

from __future__ import annotations

from random import Random
from typing import Final

import numpy as np

from voiceforge.testing.recordings import Kind, encode

_KINDS: Final[tuple[tuple[Kind, int, int], ...]] = (
    ("wav-s16", 16_000, 1),
    ("wav-f32", 16_000, 2),
    ("wav-gsm", 8_000, 1),
    ("aiff", 8_000, 1),
    ("caf", 8_000, 1),
    ("flac", 16_000, 1),
    ("ogg-vorbis", 16_000, 1),
    ("ogg-opus", 16_000, 1),
    ("mp3", 16_000, 1),
    ("m4a", 16_000, 1),
    ("alac", 16_000, 1),
    ("aac", 16_000, 1),
    ("amr", 8_000, 1),
    ("webm", 16_000, 1),
    ("mp4-video", 16_000, 1),
    ("mkv", 8_000, 2),
)
_LENGTHS: Final = (
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\x00\x00\x00",
)


def sound_recordings() -> list[bytes]:
    """0.4 s of noise in every kind of file that can be written here, at least twelve."""
    noise = np.random.default_rng(1)
    files = []
    for kind, rate_hz, channels in _KINDS:
        samples = (noise.standard_normal((int(rate_hz * 0.4), channels)) * 0.1).astype(np.float32)
        try:
            files.append(encode(samples, rate_hz, kind))
        except LookupError:
            continue
    assert len(files) >= 12
    return files


def damaged_recording(original: bytes, chance: Random) -> bytes:
    data = bytearray(original)
    at = chance.randrange(len(data))
    match chance.randrange(7):
        case 0:  # scattered bytes
            for _ in range(chance.choice((1, 3, 10, 50))):
                data[chance.randrange(len(data))] = chance.randrange(256)
        case 1:  # the header
            for _ in range(chance.choice((1, 3, 8))):
                data[chance.randrange(min(len(data), 200))] = chance.choice(
                    (0, 255, 127, 128, chance.randrange(256))
                )
        case 2:
            del data[at:]
        case 3:
            del data[at : at + chance.randrange(1, 300)]
        case 4:
            data[at:at] = chance.randbytes(chance.randrange(1, 300))
        case 5:  # a length or a count
            data[at : at + 4] = chance.choice(_LENGTHS)
        case _:  # one piece twice
            data[at:at] = data[chance.randrange(len(data)) :]
    return bytes(data)


def damaged_form(form: bytes, boundary: bytes, chance: Random) -> bytes:
    """A multipart body with one to six flaws."""
    data = bytearray(form)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(data) + 1)
        span = chance.randint(1, 60)
        match chance.randrange(6):
            case 0 if data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case 1:
                del data[at : at + span]
            case 2:
                data[at:at] = data[at : at + span]
            case 3:
                data[at:at] = chance.choice(
                    [b"\r\n", b"--", b"--" + boundary, b"\0", b'"', b";", b"[]", b"\xff"]
                )
            case 4:
                data[at:at] = chance.randbytes(span)
            case _:
                del data[at:]
    return bytes(data)
