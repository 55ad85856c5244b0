"""Levels are measured over the whole; gain lifts the quiet, spares the silent and never clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from voiceforge.speech.audio.level import LevelMeter, lifted
from voiceforge.testing.recordings import tone

RATE = 16_000
Rows = NDArray[np.float32]


def rows(*channels: NDArray[np.floating[Any]]) -> Rows:
    return np.stack(channels).astype(np.float32)


def sine(seconds: float, amplitude: float) -> NDArray[np.float32]:
    return tone(seconds, amplitude=amplitude, hz=440)[:, 0]


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


def test_the_peak_comes_to_95_percent() -> None:
    sound = sine(5.0, 0.1)
    before = sound.copy()
    np.testing.assert_allclose(lifted(sound), before * (0.95 / peak(before)), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(sound, before)


def test_gain_ends_at_30_db() -> None:
    assert peak(lifted(sine(5.0, 0.003))) == pytest.approx(0.003 * 10**1.5, rel=1e-3)


def test_too_loud_floats_are_brought_into_range() -> None:
    assert peak(lifted(sine(5.0, 4.0))) == pytest.approx(0.95, rel=1e-3)


@pytest.mark.parametrize("amplitude", [0.0, 0.0005])
def test_silence_is_not_lifted(amplitude: float) -> None:
    sound = sine(4.0, amplitude)
    np.testing.assert_array_equal(lifted(sound), sound)


def test_nothing_in_nothing_out() -> None:
    assert lifted(np.zeros(0, np.float32)).shape == (0,)
