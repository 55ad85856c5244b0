"""When events are sent again: later each time, never all at once, and not for ever."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from voiceforge.services.webhook_schedule import MOST_ATTEMPTS, pause_s

DAY_S = 24 * 3600
SENDING_S = 60.0  # the most that webhooks.timeout_s allows

chances = st.floats(0, 1, exclude_max=True)
wishes = st.one_of(st.none(), st.floats(0, 1e9))


@given(
    st.lists(chances, min_size=MOST_ATTEMPTS, max_size=MOST_ATTEMPTS),
    st.lists(wishes, min_size=MOST_ATTEMPTS),
)
def test_ends_within_a_day_whatever_receivers_ask_for(drawn: list[float], asked: list[float | None]) -> None:
    total_s = 0.0
    for attempt in range(1, MOST_ATTEMPTS):
        wait_s = pause_s(attempt, drawn[attempt], asked[attempt - 1])
        assert wait_s is not None
        total_s += SENDING_S + wait_s
    assert total_s + SENDING_S <= DAY_S
    assert pause_s(MOST_ATTEMPTS, drawn[0], asked[0]) is None


@given(st.lists(chances, min_size=MOST_ATTEMPTS, max_size=MOST_ATTEMPTS))
def test_every_pause_is_longer_than_the_one_before(drawn: list[float]) -> None:
    pauses = [pause_s(attempt, drawn[attempt]) or 0.0 for attempt in range(1, MOST_ATTEMPTS)]
    assert all(first < second for first, second in pairwise(pauses))


@given(st.integers(1, MOST_ATTEMPTS - 1), chances)
def test_is_spread_over_a_fifth(attempts: int, chance: float) -> None:
    shortest_s, wait_s = pause_s(attempts, 0.0), pause_s(attempts, chance)
    assert shortest_s is not None
    assert wait_s is not None
    assert shortest_s <= wait_s <= shortest_s / 0.8


@given(st.integers(1, MOST_ATTEMPTS - 1), chances, st.floats(0, 1e9))
def test_waits_as_long_as_it_is_asked_to_up_to_a_quarter_of_an_hour(
    attempts: int, chance: float, asked_s: float
) -> None:
    wait_s, by_itself_s = pause_s(attempts, chance, asked_s), pause_s(attempts, chance)
    assert wait_s is not None
    assert by_itself_s is not None
    assert wait_s == max(by_itself_s, min(asked_s, 900.0))


def test_begins_within_seconds_and_lasts_most_of_a_day() -> None:
    pauses = [pause_s(attempt, 0.0) or 0.0 for attempt in range(1, MOST_ATTEMPTS)]
    assert pauses[0] <= 5
    assert sum(pauses) > DAY_S * 0.75
