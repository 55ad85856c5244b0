"""A recording that cannot be looked through has no outline, and one that can has no more than it needs."""

from __future__ import annotations

import numpy as np
import pytest

from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.pipeline.outline import Outline, survey_speech
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.recordings import Kind, encode

RATE = 8_000


@pytest.mark.parametrize("kind", ["amr", "wav-gsm"])
def test_there_is_none_of_what_can_only_be_read_from_the_beginning(kind: Kind) -> None:
    with open_audio(encode(np.zeros((310 * RATE, 1), np.float32), RATE, kind)) as stream:
        assert survey_speech(stream, SileroModel(), 0.5) is None


def test_there_is_none_of_a_file_that_ends_early() -> None:
    data = encode(np.zeros((310 * RATE, 1), np.float32), RATE, "flac")
    with open_audio(data[: len(data) // 2]) as stream:
        assert survey_speech(stream, SileroModel(), 0.5) is None


def test_nobody_speaks_in_silence() -> None:
    with open_audio(encode(np.zeros((310 * RATE, 2), np.float32), RATE, "mp3"), channels="split") as stream:
        assert survey_speech(stream, SileroModel(), 0.5) == Outline(10.0, (0.0,) * 31)


def test_speech_is_counted_up_to_a_place() -> None:
    outline = Outline(10.0, (1.0, 0.0, 0.5))
    assert [outline.speech_s(at_s) for at_s in (0.0, 5.0, 15.0, 24.0, 30.0, 99.0)] == [
        0.0,
        5.0,
        10.0,
        12.0,
        15.0,
        15.0,
    ]
