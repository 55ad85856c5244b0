from __future__ import annotations

import numpy as np
import pytest

from voiceforge.errors import EngineFailed
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import DecodeOptions, Hypothesis
from voiceforge.testing.fake_engine import FakeCall, FakeEngine, says


def noise(duration_s: float) -> Waveform:
    return np.full(int(duration_s * SAMPLE_RATE_HZ), 0.1, np.float32)


def test_it_says_its_text_on_sound_and_nothing_on_silence() -> None:
    engine = FakeEngine(says("hello there", language="de"))
    loud, silent = engine.decode(
        [noise(2.0), np.zeros(SAMPLE_RATE_HZ, np.float32)], DecodeOptions(words=True)
    )
    (segment,) = loud.segments
    assert [(w.text, w.start, w.end) for w in segment.words] == [("hello", 0.0, 1.0), ("there", 1.0, 2.0)]
    assert loud.language is not None
    assert loud.language.code == "de"
    assert silent == Hypothesis(segments=())


def test_without_a_script_the_text_tells_the_length() -> None:
    (hypothesis,) = FakeEngine().decode([noise(1.2)], DecodeOptions())
    assert hypothesis.segments[0].text == "w1 w2 w3"


def test_it_remembers_its_calls() -> None:
    engine = FakeEngine()
    options = DecodeOptions(language="fr")
    engine.decode([noise(1.0), noise(0.5)], options)
    assert engine.calls == (FakeCall((16_000, 8_000), options),)


def test_a_script_may_break_it() -> None:
    def breaks(window: Waveform, options: DecodeOptions) -> Hypothesis:
        raise EngineFailed("the runtime broke")

    with pytest.raises(EngineFailed, match="the runtime broke"):
        FakeEngine(breaks).decode([noise(1.0)], DecodeOptions())


def test_it_knows_when_it_is_closed() -> None:
    engine = FakeEngine()
    before = engine.closed
    engine.close()
    assert (before, engine.closed) == (False, True)
    with pytest.raises(EngineFailed, match="closed"):
        engine.decode([noise(1.0)], DecodeOptions())
