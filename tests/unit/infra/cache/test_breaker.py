"""When something that fails is asked again."""

from __future__ import annotations

from voiceforge.infra.cache.breaker import Breaker, BreakerRule

RULE = BreakerRule(failures=3, first_pause_s=1.0, longest_pause_s=5.0)


class Bench:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.changes: list[bool] = []
        self.breaker = Breaker(RULE, self.changes.append, clock=lambda: self.now_s)

    def try_and_fail(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.breaker.passes()
            self.breaker.failed()


def test_it_opens_after_failures_in_a_row_only() -> None:
    bench = Bench()
    bench.try_and_fail(2)
    bench.breaker.succeeded()
    bench.try_and_fail(2)
    assert bench.changes == []
    bench.try_and_fail()
    assert bench.changes == [True]
    assert bench.breaker.open
    assert not bench.breaker.passes()


def test_one_try_passes_when_the_pause_is_over_and_a_success_closes_it() -> None:
    bench = Bench()
    bench.try_and_fail(3)
    bench.now_s += 1.0
    assert [bench.breaker.passes() for _ in range(3)] == [True, False, False]
    bench.breaker.succeeded()
    assert bench.changes == [True, False]
    assert bench.breaker.passes()


def test_pauses_grow_to_a_limit_and_begin_small_again() -> None:
    bench = Bench()
    bench.try_and_fail(3)
    pauses = []
    for _ in range(5):
        begin_s = bench.now_s
        while not bench.breaker.passes():
            bench.now_s += 0.5
        pauses.append(bench.now_s - begin_s)
        bench.breaker.failed()
    assert pauses == [1, 2, 4, 5, 5]
    bench.now_s += 5
    assert bench.breaker.passes()
    bench.breaker.succeeded()
    bench.try_and_fail(3)
    bench.now_s += 1
    assert bench.breaker.passes()


def test_failures_of_those_under_way_do_not_make_the_pause_longer() -> None:
    bench = Bench()
    assert all(bench.breaker.passes() for _ in range(50))
    for _ in range(50):
        bench.breaker.failed()
    assert bench.changes == [True]
    bench.now_s += 1
    assert bench.breaker.passes()


def test_a_try_that_never_says_how_it_went_does_not_block_the_next() -> None:
    bench = Bench()
    bench.try_and_fail(3)
    bench.now_s += 1
    assert bench.breaker.passes()
    bench.now_s += 1
    assert bench.breaker.passes()
