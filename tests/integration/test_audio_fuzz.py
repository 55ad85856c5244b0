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
from voiceforge.testing.mutations import damaged_recording, sound_recordings

MUTATIONS = 2_000
SEED = 20_261_120


def open_descriptors() -> int:
    """0 where the system does not list them."""
    listing = Path("/proc/self/fd")
    return len(list(listing.iterdir())) if listing.exists() else 0


@pytest.mark.timeout(40)  # a hang; they take two seconds
def test_damaged_recordings_decode_or_are_refused(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    files = sound_recordings()
    path = tmp_path / "upload"
    before = open_descriptors()
    outcomes: Counter[str] = Counter()
    for number in range(MUTATIONS):
        data = damaged_recording(chance.choice(files), chance)
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
