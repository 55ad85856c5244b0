from __future__ import annotations

import pytest

from voiceforge.speech.engines.batch_wait import BatchWait


def after(gaps_s: list[float], most_s: float = 0.010) -> tuple[BatchWait, float]:
    """Windows that came with these gaps, each of a request of its own."""
    wait, now = BatchWait(most_s), 100.0
    wait.arrived(object(), now)
    for gap_s in gaps_s:
        now += gap_s
        wait.arrived(object(), now)
    return wait, now


def test_the_first_window_is_not_held_back() -> None:
    wait, now = after([])
    assert wait.until(now, now) is None


def test_while_windows_come_closely_it_waits_for_the_next() -> None:
    wait, now = after([0.003] * 5)
    assert wait.until(now, now) == pytest.approx(now + 0.006)


def test_no_window_is_held_back_longer_than_allowed() -> None:
    wait, now = after([0.008] * 5)
    assert wait.until(now - 0.004, now) == pytest.approx(now + 0.006)
    assert wait.until(now - 0.011, now) is None


def test_what_did_not_come_when_it_was_due_is_not_waited_for() -> None:
    wait, now = after([0.002] * 5)
    assert wait.until(now, now + 0.003) == pytest.approx(now + 0.004)
    assert wait.until(now, now + 0.005) is None


@pytest.mark.parametrize("gap_s", [0.010, 0.1, 5.0])
def test_windows_far_apart_are_not_held_back(gap_s: float) -> None:
    wait, now = after([gap_s] * 5)
    assert wait.until(now, now) is None


def test_after_a_pause_the_first_is_not_held_back() -> None:
    wait, now = after([0.001] * 20 + [2.0])
    assert wait.until(now, now) is None


def test_bursts_are_known_though_there_are_pauses_between_them() -> None:
    wait, now = after(([0.001] * 7 + [0.2]) * 4 + [0.001])
    assert wait.until(now, now) is not None


def test_it_can_be_switched_off() -> None:
    wait, now = after([0.0] * 5, most_s=0.0)
    assert wait.until(now, now) is None


def test_the_windows_of_one_request_promise_nothing() -> None:
    wait = BatchWait(0.010)
    request = object()
    for step in range(10):
        wait.arrived(request, 100.0 + 0.001 * step)
    assert wait.until(100.009, 100.009) is None
