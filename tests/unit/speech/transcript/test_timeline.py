"""Where characters lie in time: words anchor the text, the rest runs evenly between them."""

from __future__ import annotations

import pytest

from voiceforge.speech.transcript import Segment, Word
from voiceforge.speech.transcript.timeline import timed_text


def test_without_words_time_runs_evenly_over_the_characters() -> None:
    timed = timed_text(Segment(0, 10.0, 20.0, "abcdefghij"))
    assert timed.time_from(0) == pytest.approx(10.0)
    assert timed.time_from(5) == pytest.approx(15.0)
    assert timed.time_until(10) == pytest.approx(20.0)


def test_words_give_their_own_times_and_pauses_belong_to_nobody() -> None:
    words = (Word("Hello,", 1.0, 1.4), Word("world.", 3.0, 3.5))
    timed = timed_text(Segment(0, 0.0, 5.0, "Hello, world.", words=words))
    assert (timed.time_from(0), timed.time_until(6)) == (1.0, 1.4)
    assert (timed.time_from(7), timed.time_until(13)) == (3.0, 3.5)


def test_punctuation_that_a_word_lacks_takes_no_time() -> None:
    words = (Word("Hello", 1.0, 1.4), Word("world", 3.0, 3.5))
    timed = timed_text(Segment(0, 0.0, 5.0, '"Hello, world."', words=words))
    assert (timed.time_from(0), timed.time_until(7)) == (1.0, 1.4)
    assert (timed.time_from(8), timed.time_until(15)) == (3.0, 3.5)


def test_a_rewritten_stretch_lies_between_the_words_around_it() -> None:
    words = (
        Word("pay", 1.0, 1.5),
        Word("twenty", 1.5, 2.0),
        Word("dollars", 2.0, 2.5),
        Word("today", 3.0, 3.5),
    )
    timed = timed_text(Segment(0, 1.0, 3.5, "pay $20 today", words=words))
    assert 1.5 <= timed.time_from(4) <= timed.time_until(7) <= 3.0
    assert timed.time_from(8) == 3.0


def test_a_missing_word_is_not_found_inside_another() -> None:
    words = (Word("a", 1.0, 1.1), Word("cat", 2.0, 2.5))
    timed = timed_text(Segment(0, 0.0, 3.0, "the big cat", words=words))
    assert timed.time_from(8) == 2.0
    timed = timed_text(Segment(0, 0.0, 3.0, "no panama cat", words=words))
    assert timed.time_from(4) < 1.0


def test_times_never_run_backwards_even_if_words_do() -> None:
    words = (Word("one", 1.0, 2.0), Word("two", 0.5, 0.7), Word("three", 1.5, 3.0))
    timed = timed_text(Segment(0, 0.0, 3.0, "one two three", words=words))
    times = [timed.time_from(i) for i in range(len(timed.text))]
    assert times == sorted(times)


def test_words_stand_in_where_the_segment_has_no_text() -> None:
    assert timed_text(Segment(0, 0.0, 1.0, "", words=(Word("a", 0, 0.5), Word("b", 0.5, 1)))).text == "a b"


def test_the_speaker_changes_where_its_first_word_begins() -> None:
    words = (Word("yes", 0.0, 0.5, speaker="A"), Word("no", 0.5, 1.0, speaker="B"))
    timed = timed_text(Segment(0, 0.0, 1.0, "yes “no", words=words))
    assert [timed.speaker_at(i) for i in (0, 2, 4, 6)] == ["A", "A", "B", "B"]
