from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.audio.recent import RecentAudio

pieces = st.lists(st.tuples(st.integers(0, 30_000), st.floats(0, 1)), max_size=30)


@given(pieces)
def test_what_is_still_needed_can_be_cut_out_wherever_it_lies(plan: list[tuple[int, float]]) -> None:
    recent = RecentAudio()
    whole = np.arange(sum(length for length, _ in plan), dtype=np.float32)
    at = needed = 0
    for length, share in plan:
        recent.append(whole[at : at + length])
        at += length
        assert recent.received == at
        needed += int((at - needed) * share)
        recent.forget(needed)
        assert np.array_equal(recent.cut(needed, at), whole[needed:at])


def test_a_cut_is_a_copy() -> None:
    recent = RecentAudio()
    recent.append(np.ones(10, np.float32))
    cut = recent.cut(0, 10)
    cut[:] = 0
    assert recent.cut(0, 10).tolist() == [1.0] * 10
