from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.pipeline.segments import Span, sentences, spread_words, with_confidences
from voiceforge.speech.transcript.types import Word

TEXTS = st.text(alphabet="abcI .,?!'é漢。\n", max_size=60)


@st.composite
def speech(draw: st.DrawFn) -> list[Span]:
    spans: list[Span] = []
    now = 0.0
    for _ in range(draw(st.integers(1, 6))):
        start = now + draw(st.floats(0.01, 100))
        now = start + draw(st.floats(0.03, 100))
        spans.append(Span(start, now))
    return spans


def said(text: str, *, step: float = 0.3, pauses: dict[int, float] | None = None) -> list[Word]:
    """Words of 0.3 s each; a pause in seconds before the words of these numbers."""
    words: list[Word] = []
    now = 0.0
    for i, part in enumerate(text.split()):
        now += (pauses or {}).get(i, 0.0)
        words.append(Word(part, now, now + step))
        now += step
    return words


def cut(text: str, **how: object) -> list[str]:
    return [" ".join(w.text for w in group) for group in sentences(said(text, **how))]  # type: ignore[arg-type]


@given(TEXTS, speech())
def test_spread_words_keep_the_text_and_lie_in_order_inside_the_speech(text: str, spans: list[Span]) -> None:
    words = spread_words(text, spans)
    assert [word.text for word in words] == text.split()
    for word in words:
        assert spans[0].start <= word.start <= word.end <= spans[-1].end
        assert word.estimated
    for before, after in itertools.pairwise(words):
        assert before.end <= after.start
    if words:
        assert words[0].start == pytest.approx(spans[0].start)
        assert words[-1].end == pytest.approx(spans[-1].end)


def test_words_take_time_by_their_length_and_none_in_a_pause() -> None:
    one, three, six = spread_words("a bcd bcdefg", [Span(10.0, 11.2), Span(20.0, 20.1)])
    assert (one.start, one.end) == pytest.approx((10.0, 10.2))
    assert (three.start, three.end) == pytest.approx((10.2, 10.6))
    assert (six.start, six.end) == pytest.approx((10.6, 20.1))


def test_a_word_at_the_seam_of_two_stretches_begins_with_the_later() -> None:
    for count in range(1, 40):  # fractions that do not add up exactly
        words = spread_words("abc " * 2 * count, [Span(0.1, 1.3), Span(5.1, 6.3)])
        assert (words[count - 1].end, words[count].start) == pytest.approx((1.3, 5.1), abs=1e-3), count


def test_confidences_are_given_only_where_there_is_one_for_each_word() -> None:
    assert [w.confidence for w in spread_words("a b", [Span(0, 1)], (0.5, 0.7))] == [0.5, 0.7]
    assert [w.confidence for w in spread_words("a b", [Span(0, 1)], (0.5,))] == [None, None]
    assert [w.confidence for w in with_confidences(said("a b"), (0.5, 0.7))] == [0.5, 0.7]
    assert with_confidences(said("a b"), (0.5,)) == tuple(said("a b"))


@given(TEXTS, st.floats(0.0, 3.0), st.dictionaries(st.integers(0, 30), st.floats(0, 3), max_size=5))
def test_sentences_are_the_words_in_order_and_none_is_empty(
    text: str, step: float, pauses: dict[int, float]
) -> None:
    words = said(text, step=step, pauses=pauses)
    groups = sentences(words)
    assert [word for group in groups for word in group] == words
    assert all(groups) or not words


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("It was late. We left.", ["It was late.", "We left."]),
        ("Why? Because! So…", ["Why?", "Because!", "So…"]),
        ('He said "Go." Then he left.', ['He said "Go."', "Then he left."]),
        ("これは。 はい。", ["これは。", "はい。"]),
        ("Dr. Smith met Mr. Jones on St. Mark's Square.", ["Dr. Smith met Mr. Jones on St. Mark's Square."]),
        ("J. R. Tolkien wrote it.", ["J. R. Tolkien wrote it."]),
        ("He paid 3.5 pounds, i.e. too much.", ["He paid 3.5 pounds, i.e. too much."]),
        ("It ended... and then it began.", ["It ended... and then it began."]),
        ("the best of times. it was the worst.", ["the best of times.", "it was the worst."]),
        ("He said (twice.) and left. then he came.", ["He said (twice.)", "and left.", "then he came."]),
        ("It is approx. ten a.m. or so, etc. and more.", ["It is approx. ten a.m. or so, etc. and more."]),
        ("Really? he asked. 12th. and last", ["Really? he asked.", "12th. and last"]),
        ("no full stop at all", ["no full stop at all"]),
        ("", []),
    ],
)
def test_where_a_sentence_ends(text: str, parts: list[str]) -> None:
    assert cut(text) == parts


def test_a_pause_of_a_second_ends_a_segment_whatever_was_said() -> None:
    assert cut("one two three", pauses={2: 1.01}) == ["one two", "three"]
    assert cut("one two three", pauses={2: 0.9}) == ["one two three"]


def test_a_sentence_that_runs_too_long_is_cut_at_a_comma() -> None:
    text = "early, " + "word " * 40 + "late, rest of it"
    first, second = cut(text)
    assert first.endswith("late,")
    assert second == "rest of it"
    assert len(cut("word " * 100)) == 1  # nowhere to cut
