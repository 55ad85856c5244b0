"""Windows decoded together by the Whisper adapter get what faster-whisper gives each of them alone."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.whisper_ct2 import TEMPERATURES
from voiceforge.speech.engines.whisper_passes import Heard, WhisperPasses, Wish
from voiceforge.testing.tiny_whisper import build_tiny_whisper

faster_whisper = pytest.importorskip("faster_whisper")
ctranslate2 = pytest.importorskip("ctranslate2")

LENGTHS_S = (3.0, 29.9, 0.5, 15.0, 30.0, 12.34)


def windows() -> list[Waveform]:
    draw = np.random.default_rng(7)
    return [
        draw.normal(0.0, 0.02 * (1 + index % 3), round(seconds * SAMPLE_RATE_HZ)).astype(np.float32)
        for index, seconds in enumerate(LENGTHS_S)
    ]


def told(heard: Heard) -> list[tuple[Any, ...]]:
    return [
        (
            *(stretch.start, stretch.end, stretch.text, stretch.tokens),
            stretch.answer.avg_logprob,
            stretch.answer.no_speech_prob,
            stretch.answer.compression_ratio,
            stretch.answer.temperature,
            [(word.text, word.start, word.end, word.probability) for word in stretch.words],
        )
        for stretch in heard.stretches
    ]


def by_faster_whisper(whisper: Any, window: Waveform, wish: Wish) -> tuple[list[tuple[Any, ...]], Any]:
    segments, info = whisper.transcribe(
        window,
        language=wish.language,
        task=wish.task,
        word_timestamps=wish.words,
        beam_size=wish.beam_size,
        temperature=list(wish.temperatures),
        initial_prompt=list(wish.prompt) or None,
        hotwords=wish.hotwords,
        condition_on_previous_text=False,
    )
    return [
        (
            *(segment.start, segment.end, segment.text, tuple(segment.tokens)),
            segment.avg_logprob,
            segment.no_speech_prob,
            segment.compression_ratio,
            segment.temperature,
            [(word.word, word.start, word.end, word.probability) for word in segment.words or ()],
        )
        for segment in segments
    ], info


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """faster-whisper with a model that guesses: what it says depends on the audio."""
    folder = build_tiny_whisper(tmp_path_factory.mktemp("tiny"), multilingual=True, unsure=True)
    return faster_whisper.WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)


@pytest.mark.parametrize(
    ("wish", "encoder_rows"),
    [
        (Wish(None, "transcribe", words=False, beam_size=5, temperatures=(0.0,)), 1),
        (Wish("de", "transcribe", words=False, beam_size=1, temperatures=(0.0,)), 4),
        (Wish("fr", "translate", words=True, beam_size=2, temperatures=(0.0,)), 1),
        (Wish("en", "transcribe", words=False, beam_size=5, temperatures=(0.0,), prompt=(64, 65)), 4),
        (Wish("en", "transcribe", words=False, beam_size=5, temperatures=(0.0,), hotwords="Ahoy"), 1),
    ],
    ids=["detected", "greedy", "translated words", "prompt", "hotwords"],
)
def test_a_batch_is_heard_like_its_windows_alone(tiny: Any, wish: Wish, encoder_rows: int) -> None:
    expected = [by_faster_whisper(tiny, window, wish) for window in windows()]
    heard = WhisperPasses(tiny, encoder_rows=encoder_rows).hear(windows(), wish)
    assert [told(one) for one in heard] == [segments for segments, _ in expected]
    assert [one.language for one in heard] == [info.language for _, info in expected]
    assert [one.language_probability for one in heard] == pytest.approx(
        [info.language_probability for _, info in expected], rel=0.01
    )
    assert any(len(one.stretches) > 1 for one in heard)


def test_no_windows_get_no_answers(tiny: Any) -> None:
    wish = Wish("en", "transcribe", words=False, beam_size=1, temperatures=(0.0,))
    assert WhisperPasses(tiny, encoder_rows=1).hear([], wish) == []


@dataclass(frozen=True)
class Script:
    """How a scripted model behaves. sure: how often its answers are good enough at once."""

    seed: int
    sure: float
    silence: float


class TooManyPasses(Exception):
    """faster-whisper may stay where it is for ever."""


class ScriptedModel:
    """Takes CTranslate2's place below faster-whisper. Every answer follows from the row's own audio, prompt
    and temperature, as a real model's does; what they are is drawn from the script."""

    is_multilingual = True
    device = "cpu"
    device_index = (0,)

    def __init__(self, script: Script, tokenizer: Any) -> None:
        self._script = script
        self._first_text = 64
        self._end = tokenizer.token_to_id("<|endoftext|>")
        self._first_timestamp = tokenizer.token_to_id("<|notimestamps|>") + 1
        self.rows: list[int] = []
        self.calls_left = 120

    def encode(self, features: Any, to_cpu: bool) -> Any:
        rows = np.array(features)
        marks = [list(zlib.crc32(row.tobytes()).to_bytes(4)) for row in rows]
        return ctranslate2.StorageView.from_array(np.array(marks, np.float32).reshape(len(rows), 4, 1))

    def detect_language(self, encoded: Any) -> list[list[tuple[str, float]]]:
        # The last frame, which faster-whisper looks at for this only, must not matter to this test.
        return [[("<|de|>", 0.75), ("<|en|>", 0.25)] for _ in range(encoded.shape[0])]

    def generate(
        self, encoded: Any, prompts: Sequence[Sequence[int]], *, sampling_temperature: float = 1.0, **how: Any
    ) -> list[Any]:
        temperature = sampling_temperature if how["beam_size"] == 1 else 0.0
        self.rows.append(len(prompts))
        self.calls_left -= 1
        if not self.calls_left:
            raise TooManyPasses
        assert encoded.shape[0] == len(prompts)
        return [
            self._answer(random.Random(f"{self._script.seed} {mark} {prompt} {temperature}"))
            for mark, prompt in zip(self._marks(encoded), prompts, strict=True)
        ]

    def align(
        self,
        encoded: Any,
        start: Sequence[int],
        text: Sequence[Sequence[int]],
        frames: int,
        median_filter_width: int,
    ) -> list[Any]:
        results = []
        for mark, tokens in zip(self._marks(encoded), text, strict=True):
            draw = random.Random(f"{mark} {start} {tokens}")
            positions = sorted(draw.choices(range(frames // 2), k=len(tokens) + 1)) if frames >= 2 else []
            results.append(
                SimpleNamespace(
                    alignments=list(enumerate(positions)), text_token_probs=[draw.random() for _ in tokens]
                )
            )
        return results

    def _marks(self, encoded: Any) -> list[bytes]:
        rows: NDArray[np.float32] = np.array(encoded)
        return [row.astype(np.uint8).tobytes() for row in rows]

    def _answer(self, draw: random.Random) -> Any:
        tokens: list[int] = []
        step = 0
        if draw.random() < 0.9:
            tokens.append(self._first_timestamp)
        for _ in range(draw.randint(0, 4)):
            tokens += [self._first_text + draw.randrange(20) for _ in range(draw.randint(0, 5))]
            if draw.random() < 0.2:
                tokens += [self._first_text] * 60  # goes round
            step += draw.randint(1, 150)
            tokens += [self._first_timestamp + step] * draw.choice((1, 1, 2, 2, 2))
        if draw.random() < 0.5:
            tokens += [self._first_text + draw.randrange(20) for _ in range(3)]
        sure = draw.random() < self._script.sure
        return SimpleNamespace(
            sequences_ids=[tokens],
            scores=[draw.uniform(-0.9, 0.0) if sure else draw.uniform(-3.0, -1.1)],
            no_speech_prob=draw.uniform(0.61, 1.0) if draw.random() < self._script.silence else 0.1,
        )


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = build_tiny_whisper(tmp_path_factory.mktemp("scripted"), multilingual=True)
    return faster_whisper.WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)


scripts = st.builds(
    Script, st.integers(0, 2**32), st.sampled_from((0.0, 0.5, 1.0)), st.sampled_from((0.0, 0.5))
)
wishes = st.builds(
    Wish,
    language=st.sampled_from((None, "en", "ja")),
    task=st.sampled_from(("transcribe", "translate")),
    words=st.booleans(),
    beam_size=st.just(5),
    temperatures=st.sampled_from((TEMPERATURES, (0.0,), (0.4,))),
    prompt=st.sampled_from(((), (70, 71))),
    hotwords=st.sampled_from((None, "Ahoy")),
)


@given(scripts, wishes)
@settings(max_examples=25, deadline=None)
def test_whatever_a_model_says_the_rules_are_faster_whispers(
    scripted: Any, script: Script, wish: Wish
) -> None:
    scripted.model = ScriptedModel(script, scripted.hf_tokenizer)
    some = [window[: SAMPLE_RATE_HZ * (index + 1)] for index, window in enumerate(windows()[:4])]
    try:
        expected = [by_faster_whisper(scripted, window, wish)[0] for window in some]
    except (TooManyPasses, IndexError):  # it cannot align what is shorter than a position of the encoder
        assume(False)
    asked_alone = sum(scripted.model.rows)
    model = scripted.model = ScriptedModel(script, scripted.hf_tokenizer)
    heard = WhisperPasses(scripted, encoder_rows=1).hear(some, wish)
    assert [told(one) for one in heard] == expected
    assert model.rows[0] == len(some)
    assert sum(model.rows) == asked_alone  # only those that failed are asked again
