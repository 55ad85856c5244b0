"""Recordings as the audio that a microphone would have given, for whoever plays one to a live stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.options import RawFormat

LIVE_FORMAT = RawFormat("s16le", SAMPLE_RATE_HZ, 1)
LIVE_BYTES_PER_S = 2 * SAMPLE_RATE_HZ


def pcm_blocks(recording: Path, *, block_ms: int = 100) -> Iterator[bytes]:
    """The recording in `LIVE_FORMAT`, `block_ms` at a time. Blocks while it decodes.

    Raises:
        InvalidAudio
    """
    size = LIVE_BYTES_PER_S * block_ms // 1000
    waiting = b""
    with open_audio(recording) as stream:
        for rows in stream.blocks():
            samples = np.clip(rows[0], -1.0, 1.0) * 32_767
            waiting += samples.astype("<i2").tobytes()
            whole = len(waiting) - len(waiting) % size
            yield from (waiting[first : first + size] for first in range(0, whole, size))
            waiting = waiting[whole:]
    if waiting:
        yield waiting
