"""When a job will be over: by the work that is left and the pace of late, and not before it is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.services.job_pace import Pace


def test_a_steady_pace_tells_the_end_once_it_is_known() -> None:
    pace = Pace()
    told = [pace.left_s(float(at), done=5.0 * at, left=500.0 - 5.0 * at) for at in range(100)]
    assert told[0] is None
    assert told[1] is None
    assert told[10:] == [pytest.approx(100.0 - at) for at in range(10, 100)]


def test_nothing_is_told_where_the_rest_is_not_known_or_nothing_moves() -> None:
    pace = Pace()
    assert [pace.left_s(float(at), done=float(at), left=None) for at in range(20)] == [None] * 20
    stuck = Pace()
    assert [stuck.left_s(float(at), done=3.0, left=7.0) for at in range(20)] == [None] * 20


def test_a_change_of_pace_shows() -> None:
    """Others come and take half of the machine: what was done before they came is forgotten in time."""
    pace, done = Pace(), 0.0
    for at in range(50):
        done += 4.0
        pace.left_s(float(at), done, left=1000.0)
    for at in range(50, 110):
        done += 2.0
        told = pace.left_s(float(at), done, left=1000.0)
    assert told == pytest.approx(500.0)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1000), st.none() | st.floats(0, 1e6)), max_size=30))
def test_it_is_never_negative(steps: list[tuple[float, float, float | None]]) -> None:
    pace, now, done = Pace(), 0.0, 0.0
    for waited_s, more, left in steps:
        now, done = now + waited_s, done + more
        told = pace.left_s(now, done, left)
        assert told is None or told >= 0.0
