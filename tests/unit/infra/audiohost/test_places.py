"""Who works, who waits, and who comes next."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from voiceforge.errors import Cancelled
from voiceforge.infra.audiohost.places import BEGUN_IN_A_ROW, Places, Turn

LONGEST_WAIT_S = 20


class Worker(threading.Thread):
    """Waits for a place, says so in `order`, and keeps it until it is let go."""

    def __init__(self, places: Places, order: list[Worker], *, begun: bool = False) -> None:
        super().__init__(daemon=True)
        self.turn = Turn()
        self.here = threading.Event()
        self.go = threading.Event()
        self.cancelled = False
        self._places, self._order, self._begun = places, order, begun
        self.start()

    def run(self) -> None:
        try:
            with self._places.one(self.turn, begun=self._begun):
                self._order.append(self)
                self.here.set()
                assert self.go.wait(LONGEST_WAIT_S)
        except Cancelled:
            self.cancelled = True

    def leave(self) -> None:
        self.go.set()
        self.join(LONGEST_WAIT_S)


def in_line(places: Places, order: list[Worker], *begun: bool) -> list[Worker]:
    """Workers that wait, in this order."""
    workers = []
    for number, one in enumerate(begun):
        workers.append(Worker(places, order, begun=one))
        wait_until_in_line(places, number + 1)
    return workers


def wait_until_in_line(places: Places, count: int) -> None:
    pause = threading.Event()
    for _ in range(LONGEST_WAIT_S * 1000):
        if places.waiting == count:
            return
        pause.wait(0.001)
    raise AssertionError


def test_no_more_work_than_there_are_places() -> None:
    places = Places(3)
    at_work, most = 0, 0
    lock = threading.Lock()

    def work(_: int) -> None:
        nonlocal at_work, most
        with places.one(Turn(), begun=False):
            with lock:
                at_work += 1
                most = max(most, at_work)
            threading.Event().wait(0.001)
            with lock:
                at_work -= 1

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(200)))
    assert most == 3
    assert places.waiting == 0


def test_those_who_have_begun_come_first_and_others_in_turn() -> None:
    places, order = Places(1), list[Worker]()
    first = Worker(places, order)
    assert first.here.wait(LONGEST_WAIT_S)
    waiting = in_line(places, order, False, True, False, True)
    first.leave()
    for worker in (waiting[1], waiting[3], waiting[0], waiting[2]):
        assert worker.here.wait(LONGEST_WAIT_S)
        worker.leave()
    assert order == [first, waiting[1], waiting[3], waiting[0], waiting[2]]


def test_somebody_new_gets_in_however_many_have_begun() -> None:
    places, order = Places(1), list[Worker]()
    first = Worker(places, order)
    assert first.here.wait(LONGEST_WAIT_S)
    waiting = in_line(places, order, False, *[True] * (BEGUN_IN_A_ROW + 5))
    for worker in waiting:
        worker.go.set()
    first.leave()
    for worker in waiting:
        worker.leave()
    assert order.index(waiting[0]) == 1 + BEGUN_IN_A_ROW


def test_one_whose_turn_is_ended_leaves_the_line_and_takes_nobodys_place() -> None:
    places, order = Places(1), list[Worker]()
    first = Worker(places, order)
    assert first.here.wait(LONGEST_WAIT_S)
    gone, stays = in_line(places, order, False, False)
    places.end(gone.turn)
    gone.join(LONGEST_WAIT_S)
    assert gone.cancelled
    first.leave()
    assert stays.here.wait(LONGEST_WAIT_S)
    stays.leave()
    with places.one(Turn(), begun=False):
        assert order == [first, stays]


def test_an_ended_turn_gets_no_place_even_where_one_is_free() -> None:
    places, turn = Places(1), Turn()
    places.end(turn)
    with pytest.raises(Cancelled), places.one(turn, begun=False):
        raise AssertionError
    with places.one(Turn(), begun=False):
        pass


def test_a_place_is_free_again_after_an_error() -> None:
    places = Places(1)
    with pytest.raises(RuntimeError), places.one(Turn(), begun=False):
        raise RuntimeError
    with places.one(Turn(), begun=False):
        pass
