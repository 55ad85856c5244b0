from __future__ import annotations

import heapq
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.speech.engines.batch_admission import Admission
from voiceforge.speech.engines.tickets import BatcherLimits


def ask(
    admission: Admission,
    now: float = 0.0,
    *,
    opened_at: list[float] | None = None,
    queued_s: float = 0.0,
    speed: float | None = None,
) -> float | None:
    return admission.retry_after_s(now, opened_at=opened_at or [], queued_s=queued_s, audio_s_per_s=speed)


def test_who_fits_comes_in() -> None:
    admission = Admission(BatcherLimits(max_tickets=2, max_queued_s=10.0))
    assert ask(admission, opened_at=[0.0], queued_s=10.0) is None


def test_where_nothing_is_known_a_second() -> None:
    assert ask(Admission(BatcherLimits(max_tickets=1)), opened_at=[0.0]) == 1.0


def test_a_place_is_free_when_the_first_of_those_inside_is_done() -> None:
    admission = Admission(BatcherLimits(max_tickets=3))
    for held_s in (7.0, 8.0, 9.0):
        admission.ended(held_s, audio_s=30.0)
    assert ask(admission, 10.0, opened_at=[10.0, 7.0, 9.0]) == 5.0


def test_each_of_those_refused_is_told_a_place_of_its_own() -> None:
    admission = Admission(BatcherLimits(max_tickets=2))
    admission.ended(10.0, audio_s=30.0)
    told = [ask(admission, 10.0, opened_at=[8.0, 4.0]) for _ in range(5)]
    assert told == [4.0, 8.0, 14.0, 18.0, 24.0]


def test_whose_time_has_come_no_longer_stands_in_line() -> None:
    admission = Admission(BatcherLimits(max_tickets=1))
    admission.ended(10.0, audio_s=30.0)
    assert [ask(admission, 0.0, opened_at=[0.0]) for _ in range(2)] == [10.0, 20.0]
    assert ask(admission, 20.0, opened_at=[20.0]) == 10.0


def test_the_line_has_an_end() -> None:
    admission = Admission(BatcherLimits(max_tickets=1))
    admission.ended(10.0, audio_s=30.0)
    told = [ask(admission, opened_at=[0.0]) or 0.0 for _ in range(1000)]
    assert max(told) == told[-1] == 90.0


def test_many_inside_take_longer_than_the_few_that_were_measured() -> None:
    admission = Admission(BatcherLimits(max_tickets=16))
    admission.ended(0.5, audio_s=40.0)  # it was alone
    assert ask(admission, opened_at=[0.0] * 16, speed=80.0) == 8.0


def test_before_any_has_ended_it_goes_by_what_waits() -> None:
    admission = Admission(BatcherLimits(max_tickets=4))
    assert ask(admission, opened_at=[0.0] * 4, queued_s=600.0, speed=50.0) == 12.0


def test_who_got_nothing_decoded_tells_nothing() -> None:
    admission = Admission(BatcherLimits(max_tickets=1))
    admission.ended(300.0, audio_s=0.0)
    assert ask(admission, opened_at=[0.0]) == 1.0


def test_too_much_audio_is_gone_by_the_measured_speed() -> None:
    admission = Admission(BatcherLimits(max_queued_s=100.0))
    assert ask(admission, opened_at=[0.0], queued_s=400.0, speed=20.0) == 15.0


def test_nor_before_one_of_those_ends_who_bring_it() -> None:
    admission = Admission(BatcherLimits(max_queued_s=100.0))
    admission.ended(60.0, audio_s=500.0)
    assert ask(admission, 10.0, opened_at=[0.0], queued_s=101.0, speed=20.0) == 50.0


@given(
    places=st.integers(1, 16),
    clients_per_place=st.integers(1, 8),
    seconds=st.floats(0.05, 30.0),
    known=st.booleans(),
)
def test_who_comes_back_when_told_gets_in(
    places: int, clients_per_place: int, seconds: float, known: bool
) -> None:
    """Clients that all come at once to an engine that shares itself equally, and wait as Retry-After says."""
    clients = places * clients_per_place
    admission = Admission(BatcherLimits(max_tickets=places))
    if known:
        admission.ended(places * seconds, audio_s=10.0)
    inside: list[float] = []
    ends: list[tuple[float, float]] = []
    refused = [0] * clients
    arrivals = [(0.0, client) for client in range(clients)]
    while arrivals:
        now, client = heapq.heappop(arrivals)
        while ends and ends[0][0] <= now:
            inside.remove(heapq.heappop(ends)[1])
            admission.ended(places * seconds, audio_s=10.0)
        told = ask(admission, now, opened_at=inside, speed=10.0 / seconds if known else None)
        if told is None:
            inside.append(now)
            heapq.heappush(ends, (now + places * seconds, now))
        else:
            refused[client] += 1
            assert told >= 1.0
            heapq.heappush(arrivals, (now + math.ceil(told), client))
    # Whole seconds move those who come back against each other; and while nobody has ended, what is told
    # grows by half with every answer.
    learning = 0 if known else clients_per_place + math.log(1 + places * seconds, 1.5)
    assert max(refused) <= 5 + learning


@pytest.mark.parametrize("places", [1, 16])
def test_who_hurries_does_not_keep_the_others_out(places: int) -> None:
    admission = Admission(BatcherLimits(max_tickets=places))
    admission.ended(2.0, audio_s=10.0)
    for _ in range(10_000):
        ask(admission, opened_at=[0.0] * places)
    assert ask(admission, 1.9, opened_at=[0.0]) == (None if places > 1 else pytest.approx(18, abs=1))
