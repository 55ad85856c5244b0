"""Which text is taken for invented. The rows are what a real model said to real sound."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.text.nonspeech import InventionLimits, SpeechEvidence, is_invented


@pytest.mark.parametrize(
    ("text", "speech_s", "probability", "logprob"),
    [
        ("You", 0.45, 0.62, -1.82),  # hens
        ("You're welcome.", 0.77, 0.69, -1.17),  # hens
        ("Thank you.", 0.3, 0.55, -0.76),  # hens
        ("Thank you for watching!", 0.4, 0.6, -0.46),  # a trumpet
        ("I think it's a good thing.", 0.22, 0.69, -0.9),  # a click
        ("I think it's a good thing.", 0.22, 0.69, None),
        ("Thank you for watching!", 1.34, 0.71, -0.54),  # music
        ("This is the first time I've ever seen a movie.", 0.89, 0.83, -0.84),  # music
        ("Mm-Hmm", 0.22, 0.62, -0.34),  # music
        ("Yep.", 0.16, 0.61, -0.55),  # a click
        ("♪♪♪♪", 3.0, 0.99, -0.1),
        ("...", 3.0, 0.99, None),
        ("", 3.0, 0.99, None),
    ],
)
def test_invented(text: str, speech_s: float, probability: float, logprob: float | None) -> None:
    evidence = SpeechEvidence(text, speech_s, probability, logprob)

    assert is_invented(evidence) == "no_speech_hallucination"


@pytest.mark.parametrize(
    ("text", "speech_s", "probability", "logprob"),
    [
        ("As not.", 0.99, 0.47, -0.34),
        ("Three.", 0.45, 0.59, -0.14),
        ("Thank you.", 1.41, 0.70, -0.14),
        ("Thank you very much.", 1.2, 0.95, -1.3),
        ("Yeah.", 0.32, 0.75, -0.44),
        ("For Zenitari.", 1.06, 0.92, -1.37),
        ("Which folders should I? Which folders should I?", 0.80, 0.62, -0.47),
        ("I can.", 0.45, 0.93, None),
        ("好", 0.3, 0.6, None),
    ],
)
def test_not_invented(text: str, speech_s: float, probability: float, logprob: float | None) -> None:
    assert is_invented(SpeechEvidence(text, speech_s, probability, logprob)) is None


def test_text_where_no_speech_was_found_has_none() -> None:
    assert is_invented(SpeechEvidence("Hello there.", 0.0, 0.0, -0.1)) == "no_speech"


def test_the_recognisers_word_for_silence_counts_unless_the_voice_is_clear() -> None:
    doubtful = SpeechEvidence("Hello there.", 1.0, 0.8, avg_logprob=-1.2, no_speech_prob=0.8)

    assert is_invented(doubtful) == "no_speech"
    assert is_invented(replace(doubtful, speech_probability=0.95)) is None
    assert is_invented(replace(doubtful, no_speech_prob=0.5, avg_logprob=-0.7)) is None
    assert is_invented(replace(doubtful, avg_logprob=-0.5)) is None


def test_limits_can_be_set() -> None:
    evidence = SpeechEvidence("Argus", 0.54, 0.78, -0.6)

    assert is_invented(evidence) is None
    assert is_invented(evidence, InventionLimits(doubtful_speech=0.8)) == "no_speech_hallucination"


@given(
    st.text(st.characters(categories=["L"]), min_size=1),
    st.floats(0.01, 30),
    st.floats(0.9, 1),
    st.none() | st.floats(-5, 0),
    st.none() | st.floats(0, 1),
)
def test_words_on_a_clear_voice_always_stay(
    text: str, speech_s: float, probability: float, logprob: float | None, no_speech: float | None
) -> None:
    assert is_invented(SpeechEvidence(text, speech_s, probability, logprob, no_speech)) is None
