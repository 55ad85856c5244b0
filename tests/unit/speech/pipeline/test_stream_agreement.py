from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.pipeline.segments import Span
from voiceforge.speech.pipeline.stream_agreement import Agreement, taken_up
from voiceforge.speech.pipeline.stream_final import behind, keeping
from voiceforge.speech.transcript.types import Segment, Word

words = st.lists(st.sampled_from(["a", "b.", "B", "cat", "cats", "Cat,", "—", "he"]), max_size=8)


def test_words_two_hypotheses_agree_on_are_stable_but_for_the_last() -> None:
    agreement = Agreement()
    agreement.hear(["the", "cat", "sat", "on"])
    assert agreement.stable == ()
    agreement.hear(["the", "cat", "sat", "under", "the"])
    assert agreement.stable == ("the", "cat")


def test_early_hypotheses_agree_where_all_of_one_is_repeated() -> None:
    agreement = Agreement()
    agreement.hear(["that", "is", "we"], early=True)
    agreement.hear(["that", "is", "were", "treated"], early=True)
    assert agreement.stable == ()
    agreement.hear(["that", "is", "were", "treated", "in"], early=True)
    assert agreement.stable == ("that", "is", "were")
    agreement.hear(["that", "is", "were", "to", "be"], early=True)
    assert agreement.stable == ("that", "is", "were")


def test_punctuation_is_part_of_what_is_agreed_on() -> None:
    agreement = Agreement()
    agreement.hear(["No", "matter.", "Try", "again."])
    agreement.hear(["No", "matter,", "try", "again.", "Fail"])
    assert agreement.stable == ()


def test_a_hypothesis_that_counts_for_nothing_is_shown_behind_the_stable_words() -> None:
    agreement = Agreement()
    for _ in range(2):
        agreement.hear(["the", "cat", "sat"])
    assert agreement.show(["a", "cat", "sat", "on"]) == ("the", "cat", "sat", "on")
    assert agreement.show(["nothing"])[:2] == agreement.stable


@given(st.lists(st.tuples(words, st.booleans()), max_size=8))
def test_stable_words_never_change_whatever_is_heard(hypotheses: list[tuple[list[str], bool]]) -> None:
    agreement = Agreement()
    for hypothesis, early in hypotheses:
        before = agreement.stable
        shown = agreement.hear(hypothesis, early=early)
        assert agreement.stable[: len(before)] == before
        assert shown[: len(agreement.stable)] == agreement.stable


@pytest.mark.parametrize(
    ("said", "words", "count"),
    [
        ("", "so it goes", 0),
        ("so it", "So it, goes", 2),
        ("every one", "everyone said", 1),
        ("everyone", "every one said", 2),
        ("I scream for", "ice cream for a", 3),
        ("the brown fox", "the fox jumps", 2),
        ("it was", "it was it was", 2),
        ("so it goes", "so it", 2),
        ("It", "That was the epoch", 1),
        ("so it goes", "", 0),
    ],
)
def test_what_was_said_is_found_again_in_other_words(said: str, words: str, count: int) -> None:
    assert taken_up(said.split(), words.split()) == count


@given(words, words)
def test_what_was_said_in_the_same_words_is_found_whole(said: list[str], more: list[str]) -> None:
    assert taken_up(said, said + more) >= len(said)
    assert taken_up(said, said) == len(said)


def segment(*texts: str, start: float = 0.0) -> Segment:
    timed = tuple(Word(text, start + i, start + i + 1) for i, text in enumerate(texts))
    return Segment(0, start, start + len(texts), " ".join(texts), words=timed)


def texts_of(segments: tuple[Segment, ...]) -> list[str]:
    return [s.text for s in segments]


def test_segments_that_begin_with_the_stable_words_stay_as_they_are() -> None:
    heard = (segment("So", "it"), segment("goes.", start=2.0))
    assert keeping(("So", "it", "goes."), heard, Span(0, 3)) == heard


def test_stable_words_take_the_times_of_those_they_replace() -> None:
    (kept,) = keeping(("I", "scream"), [segment("ice", "cream", "now")], Span(0, 3))
    assert kept.text == "I scream now"
    assert [(w.start, w.end) for w in kept.words] == [(0, 1), (1, 2), (2, 3)]
    assert [w.estimated for w in kept.words] == [True, True, False]


def test_stable_words_across_segments_go_to_the_first_of_them() -> None:
    heard = (segment("every", "one."), segment("Else", "goes", start=2.0))
    kept = keeping(("everyone", "else"), heard, Span(0, 4))
    assert texts_of(kept) == ["everyone else", "goes"]
    assert kept[1].start == 3.0


def test_stable_words_are_told_even_where_the_final_heard_nothing() -> None:
    (kept,) = keeping(("so", "it"), [], Span(1, 2))
    assert (kept.text, kept.start, kept.end) == ("so it", 1, 2)


def test_segments_without_words_keep_the_stable_ones_too() -> None:
    (kept,) = keeping(("so", "it"), [Segment(0, 0.0, 3.0, "sew it goes")], Span(0, 3))
    assert kept.text == "so it goes"


said = st.lists(st.sampled_from(["a", "b.", "Cat", "cats"]), min_size=1, max_size=4)


@given(words, st.lists(said, max_size=3))
def test_a_final_begins_with_its_stable_words_and_its_times_go_on(
    stable: list[str], sentences: list[list[str]]
) -> None:
    heard, at = [], 0.0
    for texts in sentences:
        heard.append(segment(*texts, start=at))
        at += len(texts)
    kept = keeping(stable, heard, Span(0.0, max(at, 1.0)))
    text = " ".join(texts_of(kept)).split()
    assert text[: len(stable)] == stable
    times = [time for s in kept for w in s.words for time in (w.start, w.end)]
    assert times == sorted(times)
    assert [w.text for s in kept for w in s.words] == text


def test_nothing_begins_before_what_was_told() -> None:
    (moved,) = behind(0.5, [segment("so", "it")], words=True)
    assert (moved.start, moved.words[0].start, moved.words[0].end) == (0.5, 0.5, 1.0)
    (bare,) = behind(0.0, [segment("so", "it")], words=False)
    assert bare.words == ()
