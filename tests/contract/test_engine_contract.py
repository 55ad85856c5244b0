"""What every engine owes its callers; runs on each of them and on the fake."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module, resources
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import DecodeOptions, Engine, Hypothesis
from voiceforge.speech.engines.device import DeviceChoice
from voiceforge.speech.transcript import ModelRef
from voiceforge.testing.fake_engine import FakeEngine
from voiceforge.testing.tiny_whisper import build_tiny_whisper

PLAIN = DecodeOptions()
CPU = DeviceChoice(device="cpu", compute_type="int8", threads=2)


@dataclass(frozen=True)
class Case:
    """needs: the modules without which the engine is not part of this installation.
    recognises: it has real weights, so what is said matters."""

    name: str
    build: Callable[[Path], Engine]
    needs: tuple[str, ...] = ()
    recognises: bool = False


def _moonshine(_: Path) -> Engine:
    folder = Path(str(resources.files("moonshine_voice") / "assets" / "tiny-en"))
    module = import_module("voiceforge.speech.engines.moonshine_ort")
    engine: Engine = module.MoonshineOrt(folder, ModelRef("moonshine-tiny-en", "test"), parallel_decodes=2)
    return engine


def _whisper(*, multilingual: bool, parallel_decodes: int) -> Callable[[Path], Engine]:
    def build(folder: Path) -> Engine:
        from voiceforge.speech.engines.whisper_ct2 import WhisperCt2

        build_tiny_whisper(folder, multilingual=multilingual)
        return WhisperCt2(folder, ModelRef("tiny", "test"), device=CPU, parallel_decodes=parallel_decodes)

    return build


CASES = (
    Case("fake", lambda _: FakeEngine()),
    Case("whisper_ct2", _whisper(multilingual=True, parallel_decodes=1), needs=("faster_whisper",)),
    Case("whisper_ct2_en", _whisper(multilingual=False, parallel_decodes=2), needs=("faster_whisper",)),
    Case(
        "moonshine_ort",
        _moonshine,
        needs=("voiceforge.speech.engines.moonshine_ort", "moonshine_voice"),
        recognises=True,
    ),
)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    chosen: Case = request.param
    for module in chosen.needs:
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    return chosen


@pytest.fixture(scope="module")
def engine(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    built = case.build(tmp_path_factory.mktemp(case.name))
    yield built
    built.close()


def _recording(name: str) -> Waveform:
    samples, rate_hz = soundfile.read(
        str(resources.files("moonshine_voice") / "assets" / name), dtype="float32", always_2d=True
    )
    mono = np.ascontiguousarray(soxr.resample(samples.mean(axis=1), rate_hz, SAMPLE_RATE_HZ), np.float32)
    mono.flags.writeable = False  # an engine that writes into its window fails right there
    return mono


@pytest.fixture(scope="module")
def beckett() -> Waveform:
    """Ten seconds: ever tried, ever failed, no matter; try again, fail again, fail better."""
    return _recording("beckett.wav")


@pytest.fixture(scope="module")
def dickens() -> Waveform:
    """44 seconds from the opening of A Tale of Two Cities."""
    return _recording("two_cities.wav")


def text_of(hypothesis: Hypothesis) -> str:
    return " ".join(segment.text for segment in hypothesis.segments)


def assert_well_formed(hypothesis: Hypothesis, duration_s: float) -> None:
    previous_end = previous_word_end = 0.0
    for segment in hypothesis.segments:
        assert segment.text
        assert segment.text == segment.text.strip()
        assert previous_end <= segment.start <= segment.end <= duration_s
        previous_end = segment.end
        assert segment.avg_logprob is None or segment.avg_logprob <= 1e-3
        assert segment.no_speech_prob is None or 0.0 <= segment.no_speech_prob <= 1.0
        if segment.word_confidences:
            assert len(segment.word_confidences) == len(segment.text.split())
            assert all(0.0 <= confidence <= 1.0 for confidence in segment.word_confidences)
        for word in segment.words:
            assert word.text
            assert word.text == word.text.strip()
            assert max(segment.start, previous_word_end) <= word.start <= word.end <= segment.end
            assert word.confidence is None or 0.0 <= word.confidence <= 1.0
            previous_word_end = word.end
    if hypothesis.language is not None:
        assert 0.0 <= hypothesis.language.probability <= 1.0


def test_capabilities_are_sane(engine: Engine) -> None:
    capabilities = engine.capabilities
    assert capabilities.languages
    assert all(code.islower() for code in capabilities.languages)
    assert isinstance(capabilities.languages, frozenset)
    assert isinstance(capabilities.tasks, frozenset)
    assert "transcribe" in capabilities.tasks
    assert 0.1 < capabilities.best_window_s <= capabilities.longest_window_s
    assert capabilities.max_keyterms >= 0
    assert capabilities.max_batch_rows >= 1
    assert capabilities.parallel_decodes >= 1
    assert capabilities.detects_language == (len(capabilities.languages) > 1)
    hash(capabilities)
    assert engine.model.id


def test_no_windows_give_no_hypotheses(engine: Engine) -> None:
    assert engine.decode([], PLAIN) == []


def test_a_batch_says_what_each_window_says_alone_in_order(engine: Engine, dickens: Waveform) -> None:
    lengths_s = (2.0, 7.5, 2.0, 4.1)[: engine.capabilities.max_batch_rows]
    starts = np.cumsum((0.0, *lengths_s[:-1]))
    windows = [
        dickens[int(start * SAMPLE_RATE_HZ) : int((start + length) * SAMPLE_RATE_HZ)]
        for start, length in zip(starts, lengths_s, strict=True)
    ]
    together = engine.decode(windows, PLAIN)
    alone = [engine.decode([window], PLAIN)[0] for window in windows]
    assert [text_of(hypothesis) for hypothesis in together] == [text_of(hypothesis) for hypothesis in alone]
    for hypothesis, window in zip(together, windows, strict=True):
        assert_well_formed(hypothesis, window.shape[0] / SAMPLE_RATE_HZ)


def test_it_is_deterministic(engine: Engine, beckett: Waveform) -> None:
    assert engine.decode([beckett], PLAIN) == engine.decode([beckett], PLAIN)


def test_windows_are_left_alone(engine: Engine, beckett: Waveform) -> None:
    window = beckett[: 3 * SAMPLE_RATE_HZ].copy()
    before = window.copy()
    engine.decode([window], PLAIN)
    np.testing.assert_array_equal(window, before)


def test_the_shortest_window(engine: Engine, beckett: Waveform) -> None:
    window = beckett[SAMPLE_RATE_HZ : SAMPLE_RATE_HZ + SAMPLE_RATE_HZ // 10]
    (hypothesis,) = engine.decode([window], PLAIN)
    assert_well_formed(hypothesis, 0.1)


def test_the_longest_window(engine: Engine, dickens: Waveform, case: Case) -> None:
    longest_s = engine.capabilities.longest_window_s
    window = np.resize(dickens, int(longest_s * SAMPLE_RATE_HZ))
    (hypothesis,) = engine.decode([window], PLAIN)
    assert_well_formed(hypothesis, longest_s)
    assert hypothesis.segments
    if case.recognises:
        assert len(text_of(hypothesis).split()) > longest_s  # read at more than a word a second


@pytest.mark.parametrize("peak", [0.0, 0.01, 1.0], ids=["silence", "faint noise", "loud noise"])
def test_what_is_no_speech_does_not_break_it(engine: Engine, peak: float) -> None:
    noise = np.random.default_rng(0).uniform(-peak, peak, 2 * SAMPLE_RATE_HZ).astype(np.float32)
    (hypothesis,) = engine.decode([noise], PLAIN)
    assert_well_formed(hypothesis, 2.0)


def test_it_recognises_speech(engine: Engine, case: Case, beckett: Waveform) -> None:
    text = text_of(engine.decode([beckett], PLAIN)[0]).lower()
    assert text
    if case.recognises:
        assert {"ever", "matter", "again", "better"} <= set(text.replace(".", " ").replace(",", " ").split())


@pytest.mark.parametrize("length_s", [0.1, 0.7, 1.9, 5.0, 10.0])
def test_words_come_when_asked_for_and_only_then(engine: Engine, beckett: Waveform, length_s: float) -> None:
    window = beckett[: int(length_s * SAMPLE_RATE_HZ)]
    duration_s = window.shape[0] / SAMPLE_RATE_HZ
    (plain,) = engine.decode([window], PLAIN)
    assert not any(segment.words for segment in plain.segments)
    if engine.capabilities.word_times:
        (timed,) = engine.decode([window], DecodeOptions(words=True))
        assert_well_formed(timed, duration_s)
        for segment in timed.segments:
            assert "".join(word.text for word in segment.words) == segment.text.replace(" ", "")


def test_a_given_language_is_certain(engine: Engine, beckett: Waveform) -> None:
    for code in sorted(engine.capabilities.languages)[:2]:
        (hypothesis,) = engine.decode([beckett], DecodeOptions(language=code))
        if hypothesis.language is not None:
            assert (hypothesis.language.code, hypothesis.language.probability) == (code, 1.0)


def test_every_option_it_claims_is_honoured(engine: Engine, beckett: Waveform) -> None:
    window = beckett[: 4 * SAMPLE_RATE_HZ]
    capabilities = engine.capabilities
    options = []
    if capabilities.prompt:
        options.append(DecodeOptions(prompt="Worstward Ho"))
    if capabilities.max_keyterms:
        options.append(DecodeOptions(keyterms=("Beckett", "Godot")[: capabilities.max_keyterms]))
    if capabilities.beam:
        options += [DecodeOptions(beam_size=1), DecodeOptions(beam_size=3)]
    options += [DecodeOptions(task=task) for task in sorted(capabilities.tasks)]
    for wish in options:
        (hypothesis,) = engine.decode([window], wish)
        assert_well_formed(hypothesis, 4.0)
        assert hypothesis.segments, wish
    if capabilities.temperature:
        (hypothesis,) = engine.decode([window], DecodeOptions(temperature=0.4))
        assert {segment.temperature for segment in hypothesis.segments} == {0.4}


def test_it_decodes_in_as_many_threads_as_it_claims(engine: Engine, beckett: Waveform) -> None:
    count = engine.capabilities.parallel_decodes
    windows = [beckett[: (2 + index) * SAMPLE_RATE_HZ] for index in range(count)]
    alone = [engine.decode([window], PLAIN) for window in windows]
    together = threading.Barrier(count)

    def decode(window: Waveform) -> list[list[Hypothesis]]:
        together.wait(timeout=10)
        return [engine.decode([window], PLAIN) for _ in range(3)]

    with ThreadPoolExecutor(count) as pool:
        results = list(pool.map(decode, windows))
    assert results == [[expected] * 3 for expected in alone]


def test_it_closes_more_than_once(case: Case, tmp_path: Path, beckett: Waveform) -> None:
    engine = case.build(tmp_path)
    engine.decode([beckett[:SAMPLE_RATE_HZ]], PLAIN)
    engine.close()
    engine.close()
