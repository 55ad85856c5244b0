"""Words whose times are partly or wholly unknown."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.alignment.timeline import Span, place_words, proportional_words


def test_words_share_a_stretch_by_their_length() -> None:
    words = proportional_words("a  bcd\nef", 1.0, 4.0)

    assert [w.text for w in words] == ["a", "bcd", "ef"]
    assert [(w.start, w.end) for w in words] == [(1.0, 1.5), (1.5, 3.0), (3.0, 4.0)]
    assert all(w.estimated for w in words)


def test_no_words_take_no_time() -> None:
    assert proportional_words("  ", 0.0, 3.0) == ()


def test_an_unknown_word_lies_between_its_neighbours() -> None:
    words = place_words(["one", "—", "two"], [Span(0.1, 0.4), None, Span(0.5, 0.9)], 1.0)

    assert [(w.start, w.end, w.estimated) for w in words] == [
        (0.1, 0.4, False),
        (0.4, 0.5, True),
        (0.5, 0.9, False),
    ]


def test_unknown_words_do_not_fill_a_long_pause() -> None:
    early, late = (
        place_words(["um", "one"], [None, Span(9.0, 9.5)], 20.0),
        place_words(["one", "um"], [Span(9.0, 9.5), None], 20.0),
    )

    assert early[0].start > 8.0
    assert early[0].end == 9.0
    assert late[1].start == 9.5
    assert late[1].end < 11.0


def test_a_span_on_a_guessed_sound_is_estimated() -> None:
    (word,) = place_words(["xyzzy"], [Span(0.1, 0.4, sure=False)], 1.0)

    assert word.estimated


def test_spans_beyond_the_audio_are_cut() -> None:
    (word,) = place_words(["late"], [Span(0.9, 1.2)], 1.0)

    assert (word.start, word.end) == (0.9, 1.0)


spans = st.none() | st.builds(
    lambda start, length: Span(start, start + length), st.floats(0, 30), st.floats(0, 5)
)


@given(st.lists(spans, max_size=12), st.floats(0, 20))
def test_words_never_overlap_nor_leave_the_audio(given_spans: list[Span | None], duration: float) -> None:
    words = place_words(["w" * (1 + i % 4) for i in range(len(given_spans))], given_spans, duration)

    assert len(words) == len(given_spans)
    assert all(0.0 <= w.start <= w.end <= duration for w in words)
    assert all(a.end <= b.start for a, b in pairwise(words))


@pytest.mark.parametrize(("start", "end"), [(2.0, 2.0), (3.0, 1.0)])
def test_an_empty_stretch_gives_words_without_length(start: float, end: float) -> None:
    assert all(w.start == w.end == start for w in proportional_words("a b", start, end))
