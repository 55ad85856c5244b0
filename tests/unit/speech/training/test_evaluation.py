"""Counting errors: against jiwer itself, and by hand where it matters."""

from __future__ import annotations

import sys

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.errors import DependencyMissing, UnsupportedOption
from voiceforge.speech.training.evaluation import ErrorCounts, Score, Scorer


def test_each_kind_of_error_is_counted() -> None:
    score = Scorer("none").score("a b c d e f g h", "a x c d f g h i", "en")
    assert score.words == ErrorCounts(reference=8, substitutions=1, deletions=1, insertions=1)
    assert score.words.rate == 0.375


def test_characters_are_counted_too() -> None:
    assert Scorer("none").score("abcd", "abxd", "en").characters == ErrorCounts(4, substitutions=1)


WORDS = st.lists(st.sampled_from(["a", "b", "cc", "d"]), min_size=1, max_size=12).map(" ".join)


@given(wanted=WORDS, heard=WORDS)
def test_rates_are_those_of_jiwer(wanted: str, heard: str) -> None:
    score = Scorer("none").score(wanted, heard, "en")
    assert score.words.rate == pytest.approx(jiwer.wer(wanted, heard))
    assert score.characters.rate == pytest.approx(jiwer.cer(wanted, heard))


def test_every_word_on_silence_is_an_insertion() -> None:
    words = Scorer().score("", "thanks for watching", None).words
    assert words == ErrorCounts(insertions=3)
    assert words.rate is None


def test_no_text_at_all_is_all_deletions() -> None:
    assert Scorer().score("one more time", "", "en").words == ErrorCounts(3, deletions=3)


def test_a_corpus_is_the_sum_of_its_errors_not_the_mean_of_its_rates() -> None:
    scorer = Scorer("none")
    total = scorer.score("a", "b", "en") + scorer.score("a b c d e f g h i", "a b c d e f g h i", "en")
    assert total.words.rate == 0.1


def test_the_english_normaliser_makes_spellings_equal() -> None:
    score = Scorer("whisper").score(
        "Mr. Smith's colour, it's 20 percent!", "mister smith is color it is twenty percent", "en"
    )
    assert score.words.errors == 0


@pytest.mark.parametrize(
    ("normaliser", "language", "expected"),
    [
        ("whisper", "en", "it is 20"),
        ("whisper", "en-GB", "it is 20"),
        ("whisper", "en+es", "it is 20"),
        ("whisper", None, "it is 20"),
        ("whisper", "de", "it s twenty"),
        ("whisper-english", "de", "it is 20"),
        ("whisper-basic", "en", "it s twenty"),
        ("none", "en", "It's twenty."),
    ],
)
def test_the_normaliser_goes_by_name_and_language(
    normaliser: str, language: str | None, expected: str
) -> None:
    assert Scorer(normaliser).normalise("It's  twenty.", language) == expected


def test_languages_without_spaces_are_scored_by_character() -> None:
    score = Scorer().score("客観的実在。", "客観実在", "ja")
    assert score == Score(ErrorCounts(5, deletions=1), ErrorCounts(5, deletions=1))


def test_an_unknown_normaliser_names_the_choices() -> None:
    with pytest.raises(UnsupportedOption) as refused:
        Scorer("wispher")
    assert refused.value.field == "normaliser"
    assert "whisper-english" in refused.value.choices


@pytest.mark.parametrize("missing", ["jiwer", "whisper_normalizer.english"])
def test_a_missing_dependency_says_what_to_install(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DependencyMissing, match=r"pip install 'voiceforge\[bench\]'"):
        Scorer()
