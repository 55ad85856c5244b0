"""Where the tokens of a Whisper decode are cut. Timestamps of the tests: 1000 + steps of 20 ms."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.engines.whisper_stretches import Stretch, cut

FIRST = 1000


def at(seconds: float) -> int:
    return FIRST + round(seconds / 0.02)


def test_one_stretch_ends_at_its_timestamp_and_nothing_follows() -> None:
    tokens = (at(0.0), 5, 6, at(2.0))
    found = cut(tokens, first_timestamp=FIRST, offset_frames=0, frames=900)
    assert found.stretches == (Stretch(0.0, 2.0, tokens),)
    assert (found.frames, found.to_the_end) == (900, True)


def test_text_without_an_end_lasts_as_long_as_the_audio() -> None:
    found = cut((at(0.0), 5, 6), first_timestamp=FIRST, offset_frames=100, frames=250)
    assert [(s.start, s.end) for s in found.stretches] == [(1.0, 3.5)]
    assert (found.frames, found.to_the_end) == (250, False)


def test_two_timestamps_part_two_stretches() -> None:
    tokens = (at(0.0), 5, at(1.0), at(1.5), 6, at(4.0))
    found = cut(tokens, first_timestamp=FIRST, offset_frames=0, frames=900)
    assert found.stretches == (Stretch(0.0, 1.0, tokens[:3]), Stretch(1.5, 4.0, tokens[3:]))
    assert (found.frames, found.to_the_end) == (900, True)


def test_an_unfinished_stretch_is_left_for_the_next_pass() -> None:
    found = cut((at(0.0), 5, at(1.0), at(1.5), 6, 7), first_timestamp=FIRST, offset_frames=200, frames=900)
    assert found.stretches == (Stretch(2.0, 3.0, (at(0.0), 5, at(1.0))),)
    assert (found.frames, found.to_the_end) == (100, False)


tokens_of_any_kind = st.lists(st.one_of(st.integers(0, 99), st.integers(FIRST, FIRST + 1500)))


@given(tokens_of_any_kind, st.integers(0, 2999), st.integers(1, 3000))
def test_stretches_are_what_was_said_in_order_from_the_beginning(
    tokens: list[int], offset: int, frames: int
) -> None:
    found = cut(tokens, first_timestamp=FIRST, offset_frames=offset, frames=frames)
    said = [token for stretch in found.stretches for token in stretch.tokens]
    assert said == tokens[: len(said)]
    assert all(stretch.tokens for stretch in found.stretches) or not tokens
    if found.to_the_end:
        assert (said, found.frames) == (tokens, frames)
