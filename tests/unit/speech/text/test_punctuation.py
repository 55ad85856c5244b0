from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.text.punctuation import without_doubled_commas

_WORDS = re.compile(r"[^,;，]+")


@pytest.mark.parametrize(
    ("heard", "meant"),
    [
        ("In short,, the period", "In short, the period"),
        ("one,,,, two;; three", "one, two; three"),
        ("你好，，世界、、", "你好，世界、"),
        ("well... yes?! no!! std::move .. ,.", "well... yes?! no!! std::move .. ,."),
        (", , a", ", , a"),
    ],
)
def test_a_comma_stands_once(heard: str, meant: str) -> None:
    assert without_doubled_commas(heard) == meant


@given(st.text(alphabet="ab ,;.!，\n"))
def test_words_stay_as_many_and_as_they_are(text: str) -> None:
    mended = without_doubled_commas(text)
    assert _WORDS.findall(mended) == _WORDS.findall(text)
    assert len(mended.split()) == len(text.split())
    assert without_doubled_commas(mended) == mended
