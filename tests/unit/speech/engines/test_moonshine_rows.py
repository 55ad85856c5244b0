"""Rows of a batch: each has a place, and one that leaves changes nothing for the others."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.engines.moonshine_rows import CROSS_NAMES, PAST_NAMES, DecoderRows

N_FRAMES = 6


def filled(own_frames: list[int]) -> DecoderRows:
    """Every row holds its own number everywhere."""
    rows = DecoderRows(own_frames, N_FRAMES, 3)
    for row in range(len(own_frames)):
        for place in rows.places(row).values():
            place[...] = row
        for name in PAST_NAMES:
            rows.arrays()[name][row] = row
    return rows


@given(st.lists(st.integers(0, N_FRAMES), min_size=2, max_size=6), st.data())
def test_rows_that_are_left_keep_what_they_rows_and_their_mask(
    own_frames: list[int], data: st.DataObject
) -> None:
    rows, left = filled(own_frames), list(range(len(own_frames)))
    while len(left) > 1:
        row = data.draw(st.integers(0, len(left) - 1))
        rows.leave(row)
        left[row] = left[-1]
        left.pop()
        arrays = rows.arrays()
        for name in (*CROSS_NAMES, *PAST_NAMES):
            assert [set(part.flat) for part in arrays[name]] == [{number} for number in left]
        unmasked = [int((part == 0).sum()) for part in arrays["mask"]]
        assert unmasked == [own_frames[number] for number in left]


def test_places_are_parts_of_what_the_decoder_is_given() -> None:
    rows = filled([2, 5])
    for name, place in rows.places(1).items():
        assert place.flags.c_contiguous
        assert np.shares_memory(place, rows.arrays()[name])
