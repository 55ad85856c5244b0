"""Levels are measured over the whole; gain lifts the quiet, spares the silent and never clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from voiceforge.speech.audio.level import LevelMeter, PeakNormalizer
from voiceforge.testing.recordings import tone

RATE = 16_000
Rows = NDArray[np.float32]


def rows(*channels: NDArray[np.floating[Any]]) -> Rows:
    return np.stack(channels).astype(np.float32)


def sine(seconds: float, amplitude: float) -> NDArray[np.float32]:
    return tone(seconds, amplitude=amplitude, hz=440)[:, 0]


def normalized(sound: Rows, sizes: list[int] | None = None, max_gain_db: float = 30.0) -> Rows:
    normalizer = PeakNormalizer(sound.shape[0], max_gain_db)
    out, at = [], 0
    for size in [*(sizes or []), RATE] if sizes else [RATE]:
        last = size
        out += normalizer.push(sound[:, at : at + size])
        at += size
    while at < sound.shape[1]:
        out += normalizer.push(sound[:, at : at + last])
        at += last
    out += normalizer.flush()
    return np.concatenate(out, axis=1) if out else sound[:, :0]


def peak(sound: NDArray[np.float32]) -> float:
    return float(np.abs(sound).max())


def test_meter_knows_a_sine_per_channel() -> None:
    sound = rows(sine(3.0, 0.5), sine(3.0, 0.01))
    meter = LevelMeter(2)
    for start in range(0, sound.shape[1], 7_000):
        meter.update(sound[:, start : start + 7_000])
    loud, quiet = meter.levels
    assert loud.rms == pytest.approx(0.5 / np.sqrt(2), rel=1e-3)
    assert loud.peak == pytest.approx(0.5, rel=1e-3)
    assert quiet.rms == pytest.approx(0.01 / np.sqrt(2), rel=1e-3)
    assert not loud.silent
    assert not loud.clipped
    assert not quiet.silent


def test_meter_sees_clipping_and_silence() -> None:
    meter = LevelMeter(3)
    meter.update(rows(np.clip(sine(2.0, 3.0), -1, 1), np.zeros(2 * RATE), sine(2.0, 0.0005)))
    clipped, zero, faint = meter.levels
    assert clipped.clipped
    assert clipped.clipped_fraction > 0.5
    assert zero.silent
    assert faint.silent


def test_one_loud_sample_is_not_clipping() -> None:
    sound = rows(sine(2.0, 0.5))
    sound[0, 5] = 1.0
    meter = LevelMeter(1)
    meter.update(sound)
    assert not meter.levels[0].clipped


def test_an_empty_meter_has_levels() -> None:
    assert LevelMeter(1).levels[0].silent


def test_the_peak_comes_to_95_percent_with_one_steady_gain() -> None:
    sound = rows(sine(5.0, 0.1))
    out = normalized(sound)
    assert out.shape == sound.shape
    np.testing.assert_allclose(out, sound * (0.95 / peak(sound)), rtol=1e-5, atol=1e-7)


def test_gain_ends_at_30_db() -> None:
    out = normalized(rows(sine(5.0, 0.003)))
    assert peak(out) == pytest.approx(0.003 * 10**1.5, rel=1e-3)


def test_too_loud_floats_are_brought_into_range() -> None:
    sound = rows(sine(5.0, 4.0))
    out = normalized(sound)
    assert peak(out) == pytest.approx(0.95, rel=1e-3)
    np.testing.assert_allclose(out, sound * (0.95 / peak(sound)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("amplitude", [0.0, 0.0005])
def test_silence_is_not_lifted(amplitude: float) -> None:
    sound = rows(sine(40.0, amplitude))
    np.testing.assert_array_equal(normalized(sound), sound)


def test_the_loudest_of_the_next_30_seconds_sets_the_gain() -> None:
    sound = rows(np.concatenate([sine(25.0, 0.05), sine(5.0, 0.5)]))
    out = normalized(sound)
    assert peak(out[:, : 20 * RATE]) == pytest.approx(0.05 * 0.95 / 0.5, rel=1e-3)


def test_a_long_silent_start_does_not_hide_the_speech_after_it() -> None:
    sound = rows(np.concatenate([np.zeros(60 * RATE), sine(5.0, 0.01)]))
    out = normalized(sound)
    assert peak(out[:, -2 * RATE :]) == pytest.approx(0.01 * 10**1.5, rel=1e-3)
    assert peak(out[:, : 59 * RATE]) == 0.0


def test_a_later_peak_lowers_the_gain_for_good_and_smoothly() -> None:
    sound = rows(np.concatenate([sine(40.0, 0.1), sine(5.0, 0.8), sine(40.0, 0.1)]))
    out = normalized(sound)
    assert peak(out) <= 1.0
    assert peak(out[:, 41 * RATE : 44 * RATE]) == pytest.approx(0.95, rel=1e-3)
    assert peak(out[:, : 39 * RATE]) == pytest.approx(0.95, rel=1e-3)
    assert peak(out[:, 50 * RATE :]) == pytest.approx(0.1 * 0.95 / 0.8, rel=1e-3)
    audible = np.abs(sound[0]) > 0.05
    gain = out[0][audible] / sound[0][audible]
    assert np.abs(np.diff(gain)).max() < 0.05, "no step in the gain"
    assert np.diff(gain).max() < 1e-3, "it never rises again"


def test_rows_have_gains_of_their_own() -> None:
    out = normalized(rows(sine(5.0, 0.5), sine(5.0, 0.05), np.zeros(5 * RATE)))
    assert peak(out[0]) == pytest.approx(0.95, rel=1e-3)
    assert peak(out[1]) == pytest.approx(0.95, rel=1e-3)
    assert peak(out[2]) == 0.0


def test_nothing_in_nothing_out() -> None:
    assert PeakNormalizer(1).flush() == []
    assert normalized(rows(sine(0.01, 0.1))).shape == (1, 160)


NOISE = np.random.default_rng(11)
RECORDING = rows(
    np.concatenate([np.zeros(3 * RATE), NOISE.normal(0, 0.02, 36 * RATE), NOISE.normal(0, 0.2, 6 * RATE)]),
    np.concatenate([NOISE.normal(0, 0.001, 30 * RATE), NOISE.normal(0, 0.1, 15 * RATE)]),
)
WHOLE = normalized(RECORDING, [RECORDING.shape[1]])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(min_value=1, max_value=200_000), min_size=1, max_size=8))
def test_the_output_does_not_depend_on_how_the_input_was_cut(sizes: list[int]) -> None:
    sizes[-1] = max(sizes[-1], 1_000)  # it repeats to the end
    np.testing.assert_array_equal(normalized(RECORDING, sizes), WHOLE)
