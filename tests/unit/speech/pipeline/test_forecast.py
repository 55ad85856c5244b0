"""How much work a recording still makes: with an outline, without one, and where nobody can tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.pipeline.channel import WindowAudio
from voiceforge.speech.pipeline.forecast import HEARING, Forecast
from voiceforge.speech.pipeline.outline import Outline
from voiceforge.speech.pipeline.windows import Window


def windows(count: int, seconds: float = 10.0) -> list[WindowAudio]:
    end = round(seconds * SAMPLE_RATE_HZ)
    return [WindowAudio(0, Window(0, end, ()), np.zeros(0, np.float32))] * count


def test_what_was_heard_foretells_the_rest() -> None:
    forecast = Forecast(1000.0, None)
    forecast.heard(windows(20), 400.0)
    assert forecast.left(30.0) == pytest.approx(30.0 + 300.0 + 600.0 * HEARING)
    assert forecast.done(170.0) == pytest.approx(170.0 + 400.0 * HEARING)


def test_an_outline_knows_of_the_silence_that_is_to_come() -> None:
    forecast = Forecast(1000.0, Outline(100.0, (1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5)))
    forecast.heard(windows(40), 400.0)
    assert forecast.left(0.0) == pytest.approx(50.0 + 600.0 * HEARING)


def test_an_outline_is_believed_as_far_as_it_came_true() -> None:
    """Windows hold pauses, too, and every detector has its opinion."""
    forecast = Forecast(20_000.0, Outline(100.0, (0.5,) * 200))
    forecast.heard(windows(800), 10_000.0)
    assert forecast.left(0.0) == pytest.approx(8_000.0 + 10_000.0 * HEARING, rel=0.01)


def test_without_a_length_or_before_anything_was_heard_nobody_can_tell() -> None:
    unknown = Forecast(None, None)
    unknown.heard(windows(3), 40.0)
    assert unknown.left(0.0) is None
    assert Forecast(100.0, None).left(0.0) is None


def test_a_few_seconds_foretell_nothing() -> None:
    forecast = Forecast(1000.0, None)
    forecast.heard(windows(1), 20.0)
    assert forecast.left(0.0) is None
    short = Forecast(20.0, None)
    short.heard(windows(1), 20.0)
    assert short.left(10.0) == pytest.approx(10.0)


@given(
    st.none() | st.floats(0.1, 1e6),
    st.none() | st.lists(st.floats(0, 1), min_size=1, max_size=50).map(tuple),
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1e5)), max_size=10),
)
def test_it_is_never_negative(
    total_s: float | None, shares: tuple[float, ...] | None, heard: list[tuple[int, float]]
) -> None:
    """Whatever a file says of its length."""
    outline = Outline(total_s / len(shares), shares) if shares and total_s else None
    forecast, at_s = Forecast(total_s, outline), 0.0
    for count, further_s in heard:
        at_s += further_s
        forecast.heard(windows(count), at_s)
        left = forecast.left(0.0)
        assert left is None or left >= 0.0
