"""Moving windows, against the plain rule: of any `seconds`, no more than `most` passed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from voiceforge.infra.limiter.base import Window
from voiceforge.infra.limiter.memory import MemoryLimiter

Steps = st.lists(st.tuples(st.floats(0, 40), st.sampled_from("ab")), max_size=200)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(steps=Steps, most=st.integers(0, 12), seconds=st.integers(1, 60))
def test_no_window_holds_more_than_may_pass_and_none_is_refused_without_need(
    steps: list[tuple[float, str]], most: int, seconds: int
) -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock=clock)
    passed: dict[str, list[float]] = {"a": [], "b": []}
    for wait, key in steps:
        clock.now += wait
        spent = limiter.spend_now(Window(key, most, seconds))
        recent = [at for at in passed[key] if at > clock.now - seconds]
        assert spent.passed == (len(recent) < most)
        if spent.passed:
            passed[key].append(clock.now)
            recent.append(clock.now)
        assert spent.remaining == most - len(recent)


@given(steps=Steps, most=st.integers(1, 12))
def test_whoever_waits_as_long_as_was_said_passes_and_not_sooner(
    steps: list[tuple[float, str]], most: int
) -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock=clock)
    for wait, key in steps:
        clock.now += wait
        refused = limiter.spend_now(Window(key, most))
        if refused.passed:
            continue
        clock.now += refused.reset_s * 0.99
        assert not limiter.spend_now(Window(key, most)).passed
        clock.now += refused.reset_s * 0.01 + 1e-6
        assert limiter.spend_now(Window(key, most)).passed


@given(before=st.integers(1, 30), after=st.integers(1, 30), asked=st.integers(0, 60))
def test_a_limit_that_changes_holds_for_what_was_used_before(before: int, after: int, asked: int) -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock=clock)
    for _ in range(asked):
        clock.now += 0.1
        limiter.spend_now(Window("a", before))
    used = min(before, asked)
    spent = limiter.spend_now(Window("a", after))
    assert spent.passed == (used < after)
    if not spent.passed:
        clock.now += spent.reset_s + 1e-6
        assert limiter.spend_now(Window("a", after)).passed


def test_windows_that_are_over_take_no_memory() -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock=clock)
    for number in range(10_000):
        clock.now += 1
        limiter.spend_now(Window(f"a:{number}", 5))
    assert len(limiter) <= 61
