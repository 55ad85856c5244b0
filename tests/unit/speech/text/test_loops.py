"""Which repetition is cut, and which is speech. Most of the loops are what a real model said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.text.loops import LoopLimits, strip_loops

LONG_LOOP = "the loss of the cotton itself, but the hopes, " + "the dreams, " * 12 + "dream"


@pytest.mark.parametrize(
    ("text", "seconds", "kept"),
    [
        (
            "the first Bible actually dated, which also was printed at Maintz by Peter Schoeffer in the year "
            "1862, and 1862, and 1862, and 1862, and 1862, 1862",
            7.9,
            "the first Bible actually dated, which also was printed at Maintz by Peter Schoeffer in the year "
            "1862",
        ),
        (
            "That the forms of printed letters should follow more or less closely "
            "those of those of those of those of those of those of those of those of those of those",
            3.9,
            "That the forms of printed letters should follow more or less closely those of",
        ),
        (LONG_LOOP, 5.0, "the loss of the cotton itself, but the hopes, the dreams"),
        ("I'm going to go to the hospital. " * 4, 10.0, "I'm going to go to the hospital."),
        ("Took impressions from from from from from from from", 1.3, "Took impressions from"),
        ("Six, six, six, six, six, six", 0.5, "Six"),
        (
            "What's the temperature " + "of the temperature " * 5 + "of the",
            1.7,
            "What's the temperature of",
        ),
        ("Press 4. Press 4. Press 4. Press 4.", 1.3, "Press 4."),
        ("One, two, three, four, " + "five, " * 11, 3.4, "One, two, three, four, five"),
        ("And which developed and satisfactorily, and satisfactorily, and satis", 1.5, None),
        ("♪♪♪♪♪♪♪♪♪♪♪♪♪♪♪", 10.0, "♪"),
        ("你叫叫叫叫叫叫叫叫叫叫叫叫叫叫叫", 5.0, "你叫"),
        ("谢谢观看。" * 8, 4.0, "谢谢观看。"),
        ("Спасибо за просмотр! " * 9, 5.0, "Спасибо за просмотр!"),
        ("yes " * 40, 0.0, "yes"),
    ],
)
def test_a_loop_is_cut_to_its_first_round(text: str, seconds: float, kept: str | None) -> None:
    found = strip_loops(text, seconds)

    assert found.removed
    assert len(found.kept) < len(text)
    if kept is not None:
        assert found.kept == kept


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("No, no, no!", 1.0),
        ("No, no, no, no, no.", 2.0),
        ("That is very very good.", 1.2),
        ("I had had enough of that that day.", 2.0),
        ("One one one two.", 1.5),
        ("Five five five, five five five, five five five five.", 4.0),
        ("1 2 3 4 5 6 7 8 9 10 1 2 3 4 5 6 7 8 9 10", 9.0),
        ("zero zero zero zero zero zero zero zero", 3.5),
        ("Ha ha ha ha ha ha ha!", 2.0),
        ("la la la la la la la la la la la", 4.0),
        ("Let it be, let it be, let it be, let it be, whisper words of wisdom, let it be.", 14.0),
        ("Row, row, row your boat, gently down the stream, merrily, merrily, merrily, merrily", 8.0),
        ("Four more years! Four more years! Four more years! Four more years!", 5.0),
        ("We shall overcome, we shall overcome, we shall overcome some day.", 9.0),
        (
            "It was the best of times, it was the worst of times, it was the age of wisdom",
            8.0,
        ),
        ("To be, or not to be, that is the question.", 3.0),
        ("Testing, testing, one two three. Testing, testing, one two three.", 6.0),
        ("Press one to go on, press two to hear it again, press three to hang up.", 5.0),
        ("哈哈哈哈哈", 2.0),
        ("对对对,是的是的。", 2.0),
        ("buffalo buffalo buffalo buffalo buffalo", 0.0),
        ("", 1.0),
        ("...", 0.1),
        ("nooooooooooooooo", 1.0),
    ],
)
def test_what_people_say_again_stays(text: str, seconds: float) -> None:
    found = strip_loops(text, seconds)

    assert found.kept == text
    assert found.removed == ()


def test_what_was_cut_is_told_in_order() -> None:
    found = strip_loops("one two " * 8 + "and then " + "go on " * 9 + "home", 4.0)

    assert found.kept == "one two and then go on home"
    assert found.removed == ("one two " * 6 + "one two", "go on " * 7 + "go on")


def test_the_same_words_are_a_loop_only_where_there_was_no_time_for_them() -> None:
    text = "stop it stop it stop it stop it"

    assert strip_loops(text, 0.7).kept == "stop it"
    assert strip_loops(text, 3.0).kept == text


def test_limits_can_be_set() -> None:
    assert strip_loops("no no no", 2.0, LoopLimits(word_repeats=3)).kept == "no"


WORDS = st.sampled_from(["a", "no", "the", "1862,", "dream.", "好", "♪", "I'm", "-", "ß"])


@given(st.lists(WORDS, max_size=60).map(" ".join), st.floats(0, 30))
def test_nothing_is_lost_or_added_and_a_second_pass_finds_nothing(text: str, seconds: float) -> None:
    found = strip_loops(text, seconds)

    assert sorted(c for part in (found.kept, *found.removed) for c in part if c.isalnum()) == sorted(
        c for c in text if c.isalnum()
    )
    assert set(found.kept.split()) <= set(text.split()) | {w.rstrip(" ,;:-–—") for w in text.split()}
    assert strip_loops(found.kept, seconds).removed == ()
    if any(c.isalnum() for c in text):
        assert any(c.isalnum() for c in found.kept)


@given(st.text(max_size=200), st.floats(0, 30))
def test_any_text_is_survived(text: str, seconds: float) -> None:
    found = strip_loops(text, seconds)

    assert len(found.kept) <= len(text)
    assert found.removed or found.kept == text


@given(
    st.lists(st.integers(0, 10**6), unique=True, max_size=50).map(lambda ns: " ".join(f"w{n}x" for n in ns))
)
def test_text_without_repetition_is_never_touched(text: str) -> None:
    assert strip_loops(text, 0.1).kept == text
