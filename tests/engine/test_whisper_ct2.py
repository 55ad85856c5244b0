"""The Whisper adapter on faster-whisper itself, over a tiny model that says a fixed text."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voiceforge.errors import (
    Cancelled,
    DependencyMissing,
    EngineFailed,
    InvalidRequest,
    ModelNotInstalled,
    OutOfDeviceMemory,
)
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import DecodeOptions, Hypothesis
from voiceforge.speech.engines.device import DeviceChoice
from voiceforge.speech.engines.whisper_ct2 import TEMPERATURES, WhisperCt2, decode_failure
from voiceforge.speech.engines.whisper_files import capabilities_of
from voiceforge.speech.transcript import Language, ModelRef
from voiceforge.testing.tiny_whisper import build_tiny_whisper

faster_whisper = pytest.importorskip("faster_whisper")

CPU = DeviceChoice(device="cpu", compute_type="int8", threads=2)
REF = ModelRef("tiny", "test")

Load = Callable[..., WhisperCt2]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """A tiny model built as the test asks, loaded; closed at the end."""
    opened: list[WhisperCt2] = []

    def build_and_load(
        *, languages: frozenset[str] | None = None, multilingual: bool = True, **build: Any
    ) -> WhisperCt2:
        folder = build_tiny_whisper(tmp_path / str(len(opened)), multilingual=multilingual, **build)
        opened.append(WhisperCt2(folder, REF, device=CPU, languages=languages))
        return opened[-1]

    yield build_and_load
    for engine in opened:
        engine.close()


@pytest.mark.parametrize("vocabulary", ["vocabulary.json", "vocabulary.txt"])
@pytest.mark.parametrize("multilingual", [True, False])
def test_the_files_say_what_the_loaded_model_can_do(
    tmp_path: Path, multilingual: bool, vocabulary: str
) -> None:
    folder = build_tiny_whisper(tmp_path / "model", multilingual=multilingual)
    engine = WhisperCt2(folder, REF, device=CPU)
    loaded = engine.capabilities
    engine.close()
    if vocabulary == "vocabulary.txt":
        tokens = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        (folder / "vocabulary.json").unlink()
        (folder / "vocabulary.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    told = capabilities_of(folder)
    assert told is not None
    scheduling = {"max_batch_rows": loaded.max_batch_rows, "parallel_decodes": loaded.parallel_decodes}
    assert replace(told, **scheduling) == loaded


@pytest.mark.parametrize("name", ["tokenizer.json", "vocabulary.json"])
def test_files_that_are_not_all_there_say_nothing(tmp_path: Path, name: str) -> None:
    folder = build_tiny_whisper(tmp_path / "model", multilingual=True)
    (folder / name).unlink()
    assert capabilities_of(folder) is None


def hum(duration_s: float) -> Waveform:
    time = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (0.1 * np.sin(2 * np.pi * 220 * time)).astype(np.float32)


def text_of(hypothesis: Hypothesis) -> str:
    return " ".join(segment.text for segment in hypothesis.segments)


def hear(engine: WhisperCt2, window: Waveform, **options: Any) -> Hypothesis:
    return engine.decode([window], DecodeOptions(**options))[0]


def test_a_multilingual_model_knows_its_languages(load: Load) -> None:
    capabilities = load().capabilities
    assert {"en", "de", "zh"} < capabilities.languages
    assert len(capabilities.languages) == 99
    assert "yue" not in capabilities.languages  # faster-whisper lists it for models that lack it, too
    assert "jv" in capabilities.languages
    assert "jw" not in capabilities.languages
    assert capabilities.tasks == {"transcribe", "translate"}
    assert capabilities.detects_language
    assert capabilities.word_times


def test_an_english_model_knows_english(load: Load) -> None:
    capabilities = load(multilingual=False).capabilities
    assert capabilities.languages == {"en"}
    assert capabilities.tasks == {"transcribe"}
    assert not capabilities.detects_language


@pytest.mark.parametrize("multilingual", [True, False])
@pytest.mark.parametrize("words", [True, False])
def test_it_says_what_faster_whisper_says(tmp_path: Path, multilingual: bool, words: bool) -> None:
    folder = build_tiny_whisper(tmp_path, multilingual=multilingual)
    engine = WhisperCt2(folder, REF, device=CPU)
    bare = faster_whisper.WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=2)
    expected, info = bare.transcribe(hum(5.0), word_timestamps=words, condition_on_previous_text=False)

    hypothesis = hear(engine, hum(5.0), words=words)

    assert hypothesis.language == Language(info.language, info.language_probability)
    assert [
        (s.text, s.tokens, s.avg_logprob, s.no_speech_prob, s.temperature, s.compression_ratio)
        for s in hypothesis.segments
    ] == [
        (e.text.strip(), tuple(e.tokens), e.avg_logprob, e.no_speech_prob, e.temperature, e.compression_ratio)
        for e in expected
    ]
    engine.close()


@pytest.mark.parametrize("asks", [0, 1])
def test_stops_where_nobody_waits_any_more(load: Load, asks: int) -> None:
    engine = load(text=("forty", "boats"))
    left = itertools.count(asks, -1)
    with pytest.raises(Cancelled):
        engine.decode([hum(3.0)], DecodeOptions(), lambda: next(left) > 0)
    assert next(left) == -1  # it did not ask again


def test_the_task_decides_what_is_said(load: Load) -> None:
    engine = load(text=("vierzig", "schiffe"), translation=("forty", "boats"))
    assert text_of(hear(engine, hum(3.0))) == "vierzig schiffe"
    assert text_of(hear(engine, hum(3.0), language="de", task="translate")) == "forty boats"


def test_the_language_is_detected_unless_given(load: Load) -> None:
    engine = load(language="fr")
    detected = hear(engine, hum(3.0)).language
    assert detected is not None
    assert detected.code == "fr"
    assert 0.9 < detected.probability <= 1.0
    assert hear(engine, hum(3.0), language="de").language == Language("de", 1.0)


def test_javanese_has_its_iso_code(load: Load) -> None:
    engine = load(language="jw")
    assert hear(engine, hum(3.0)).language == Language("jv", pytest.approx(1.0, abs=0.1))  # type: ignore[arg-type]
    assert hear(engine, hum(3.0), language="jv").language == Language("jv", 1.0)


def test_a_model_of_one_language_is_not_asked_which(load: Load) -> None:
    engine = load(language="fr", languages=frozenset({"en"}))
    assert not engine.capabilities.detects_language
    assert hear(engine, hum(3.0)).language == Language("en", 1.0)


@pytest.mark.parametrize(("threads", "decodes"), [(1, 1), (2, 2), (3, 2), (8, 4)])
def test_the_cores_are_shared_out_among_decodes(tmp_path: Path, threads: int, decodes: int) -> None:
    folder = build_tiny_whisper(tmp_path, multilingual=False)
    engine = WhisperCt2(folder, REF, device=DeviceChoice("cpu", "int8", threads))
    assert engine.capabilities.parallel_decodes == decodes
    engine.close()


def test_a_model_never_claims_a_language_without_a_token(load: Load) -> None:
    assert load(languages=frozenset({"de", "yue"})).capabilities.languages == {"de"}


def test_several_windows_are_answered_in_order(load: Load) -> None:
    hypotheses = load(end_s=8.0).decode([hum(1.0), hum(4.0), hum(2.5)], DecodeOptions())
    assert [hypothesis.segments[-1].end for hypothesis in hypotheses] == [1.0, 4.0, 2.5]


def test_times_end_with_the_window(load: Load) -> None:
    segment = hear(load(end_s=20.0), hum(0.5), words=True).segments[0]
    assert segment.end <= 0.5
    assert all(word.end <= 0.5 for word in segment.words)
    assert " ".join(word.text for word in segment.words) == segment.text


def test_text_with_a_high_no_speech_probability_is_reported_not_dropped(load: Load) -> None:
    (segment,) = hear(load(no_speech=True), hum(3.0)).segments
    assert segment.text == "forty two ships sail"
    assert segment.no_speech_prob == pytest.approx(1.0, abs=0.01)


def test_where_nothing_is_heard_no_language_is_claimed(load: Load) -> None:
    engine = load(unsure=True, no_speech=True)
    assert hear(engine, np.zeros(2 * SAMPLE_RATE_HZ, np.float32)) == Hypothesis(segments=(), language=None)
    given = hear(engine, np.zeros(2 * SAMPLE_RATE_HZ, np.float32), language="de")
    assert given.language == Language("de", 1.0)


def test_an_unsure_model_is_asked_again_at_rising_temperatures(load: Load) -> None:
    segments = hear(load(unsure=True, multilingual=False), hum(2.0), beam_size=1).segments
    assert {segment.temperature for segment in segments} == {TEMPERATURES[-1]}
    segments = hear(load(unsure=True, multilingual=False), hum(2.0), temperature=0.2).segments
    assert {segment.temperature for segment in segments} == {0.2}


def test_prompt_and_keyterms_never_crowd_out_the_text(load: Load) -> None:
    # the tiny tokenizer makes one token of each byte
    engine = load()
    heard = hear(engine, hum(3.0), prompt="harbour " * 200, keyterms=("Aberystwyth", "Llangollen") * 6)
    assert text_of(heard) == "forty two ships sail"


def test_keyterms_that_do_not_fit_are_refused(load: Load) -> None:
    with pytest.raises(InvalidRequest, match="100 keyterms take") as caught:
        hear(load(), hum(3.0), keyterms=("Aberystwyth",) * 100)
    assert caught.value.field == "keyterms"


def test_control_tokens_in_a_prompt_are_only_text(load: Load) -> None:
    engine = load()
    for attack in ("<|endoftext|>", "<|startoftranscript|><|translate|>", "<|<|translate|>|>"):
        assert text_of(hear(engine, hum(3.0), prompt=attack, keyterms=(attack,))) == "forty two ships sail"


@pytest.mark.parametrize("name", ["model.bin", "tokenizer.json", "vocabulary.json"])
def test_an_incomplete_folder_is_named_as_such(tmp_path: Path, name: str) -> None:
    folder = build_tiny_whisper(tmp_path, multilingual=False)
    (folder / name).unlink()
    with pytest.raises(ModelNotInstalled, match=f"{name} missing: voiceforge models pull tiny"):
        WhisperCt2(folder, REF, device=CPU)


def test_a_damaged_model_does_not_load(tmp_path: Path) -> None:
    folder = build_tiny_whisper(tmp_path, multilingual=False)
    whole = (folder / "model.bin").read_bytes()
    (folder / "model.bin").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EngineFailed) as caught:
        WhisperCt2(folder, REF, device=CPU)
    assert str(tmp_path) not in caught.value.message


def test_a_front_end_of_another_model_is_noticed(tmp_path: Path) -> None:
    folder = build_tiny_whisper(tmp_path, multilingual=False)
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": 128}))
    with pytest.raises(ModelNotInstalled, match="80 mel bins"):
        WhisperCt2(folder, REF, device=CPU)


def test_without_alignment_heads_it_does_not_promise_word_times(tmp_path: Path) -> None:
    folder = build_tiny_whisper(tmp_path, multilingual=False)
    config = json.loads((folder / "config.json").read_text())
    del config["alignment_heads"]
    (folder / "config.json").write_text(json.dumps(config))
    engine = WhisperCt2(folder, REF, device=CPU)
    assert not engine.capabilities.word_times
    with pytest.raises(EngineFailed, match="model tiny failed"):  # CTranslate2's own refusal, mapped
        hear(engine, hum(1.0), words=True)
    engine.close()


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (RuntimeError("CUDA failed with error out of memory"), OutOfDeviceMemory),
        (RuntimeError("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED"), OutOfDeviceMemory),
        (MemoryError("std::bad_alloc"), OutOfDeviceMemory),
        (RuntimeError("CUDA failed with error an illegal memory access was encountered"), EngineFailed),
        (ValueError("/models/secret: unexpected shape"), EngineFailed),
    ],
)
def test_a_lack_of_memory_is_told_from_other_failures(raised: Exception, seen: type[EngineFailed]) -> None:
    failure = decode_failure(REF, raised)
    assert type(failure) is seen
    assert str(raised) not in failure.message


def test_a_closed_engine_says_so(load: Load) -> None:
    engine = load()
    engine.close()
    engine.close()
    with pytest.raises(EngineFailed, match="closed"):
        hear(engine, hum(1.0))


def test_without_faster_whisper_the_mend_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)  # what an import finds that must fail
    with pytest.raises(DependencyMissing, match=r"pip install 'voiceforge\[whisper\]'"):
        WhisperCt2(tmp_path, REF, device=CPU)
