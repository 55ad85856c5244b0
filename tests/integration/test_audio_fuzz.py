"""Two thousand damaged recordings: each decodes or is refused in our words; no crash, no hang, no leak."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from voiceforge.errors import VoiceForgeError
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.options import ChannelMode
from voiceforge.testing.recordings import Kind, encode

MUTATIONS = 2_000
SEED = 20_261_120
SEEDS: list[tuple[Kind, int, int]] = [
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
]
LENGTHS = (
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\x00\x00\x00",
)


def originals() -> list[bytes]:
    noise = np.random.default_rng(1)
    files = []
    for kind, rate, channels in SEEDS:
        samples = (noise.standard_normal((int(rate * 0.4), channels)) * 0.1).astype(np.float32)
        try:
            files.append(encode(samples, rate, kind))
        except LookupError:
            continue
    return files


def mutated(original: bytes, chance: random.Random) -> bytes:
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
            data[at : at + 4] = chance.choice(LENGTHS)
        case _:  # one piece twice
            data[at:at] = data[chance.randrange(len(data)) :]
    return bytes(data)


def open_descriptors() -> int:
    """0 where the system does not list them."""
    listing = Path("/proc/self/fd")
    return len(list(listing.iterdir())) if listing.exists() else 0


@pytest.mark.timeout(40)  # a hang; they take two seconds
def test_damaged_recordings_decode_or_are_refused(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    files = originals()
    assert len(files) >= 12
    path = tmp_path / "upload"
    before = open_descriptors()
    outcomes: Counter[str] = Counter()
    for number in range(MUTATIONS):
        data = mutated(chance.choice(files), chance)
        source: bytes | Path = data
        if number % 2:
            path.write_bytes(data)
            source = path
        channels: ChannelMode = "split" if number % 5 == 0 else "mix"
        try:
            with open_audio(source, channels=channels) as stream:
                for block in stream.blocks():
                    assert block.dtype == np.float32
                    assert block.shape[0] == stream.channel_count
                    assert np.isfinite(block).all()
                assert stream.decoded_s < 60, "these recordings last 0.4 s"
                outcomes["decoded"] += 1
        except VoiceForgeError as error:
            outcomes[type(error).__name__ if error.message else "no message"] += 1
    assert open_descriptors() == before
    assert outcomes["decoded"] > MUTATIONS / 3
    assert outcomes["UnreadableAudio"] > MUTATIONS / 20
    assert not outcomes["no message"]
