from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pytest

from voiceforge.errors import EngineFailed, ModelNotInstalled, Overloaded, ShuttingDown
from voiceforge.infra.enginehost.in_process import InProcessHosts
from voiceforge.services.engine_room import EngineRoom
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.base import DecodeOptions
from voiceforge.speech.engines.device import RunsOn
from voiceforge.speech.engines.tickets import BatcherLimits, Priority
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.fake_engine import FakeEngine, says
from voiceforge.testing.log_lines import log_lines

SECOND = np.full(SAMPLE_RATE_HZ, 0.1, np.float32)
LONGEST_WAIT_S = 20


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Loader:
    """Makes a fresh engine each time; `before` runs first and may wait or raise."""

    before: Callable[[str], None] = lambda model_id: None
    engines: dict[str, list[FakeEngine]] = field(default_factory=dict)

    def __call__(self, model_id: str) -> FakeEngine:
        self.before(model_id)
        engine = FakeEngine(says("hello"))
        self.engines.setdefault(model_id, []).append(engine)
        return engine

    def made(self, model_id: str = "a") -> list[FakeEngine]:
        return self.engines.get(model_id, [])


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("test")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def room(loader: Loader, metrics: Metrics, clock: Clock) -> Iterator[EngineRoom]:
    room = EngineRoom(
        InProcessHosts(loader, BatcherLimits(max_tickets=50)),
        metrics=metrics,
        idle_unload_s=60.0,
        keep=lambda: frozenset({"kept"}),
        clock=clock,
    )
    yield room
    room.close(0)


def test_a_model_is_loaded_once_however_many_come_at_once(room: EngineRoom, loader: Loader) -> None:
    together = threading.Barrier(8)

    def come(_: int) -> None:
        together.wait(LONGEST_WAIT_S)
        room.open("a").close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come, range(8)))
    assert len(loader.made()) == 1
    assert list(room.loaded()) == ["a"]


def test_one_model_loading_keeps_nobody_from_another(room: EngineRoom, loader: Loader) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def slow(model_id: str) -> None:
        if model_id == "slow":
            loading.set()
            assert go_on.wait(LONGEST_WAIT_S)

    loader.before = slow
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(room.open, "slow")
        assert loading.wait(LONGEST_WAIT_S)
        room.open("fast")
        assert (room.is_loaded("fast"), room.is_loaded("slow")) == (True, False)
        assert not first.done()
        assert room.open_tickets() == 1
        go_on.set()
        first.result(LONGEST_WAIT_S)
    assert room.open_tickets() == 2


def test_a_model_that_could_not_be_loaded_is_tried_again(room: EngineRoom, loader: Loader) -> None:
    def missing(model_id: str) -> None:
        raise ModelNotInstalled("not here")

    loader.before = missing
    with pytest.raises(ModelNotInstalled):
        room.open("a")
    assert not room.is_loaded("a")
    loader.before = lambda model_id: None
    room.open("a")
    assert room.is_loaded("a")


def test_limits_hold_for_each_model(room: EngineRoom) -> None:
    for _ in range(50):
        room.open("a")
    with pytest.raises(Overloaded):
        room.open("a")
    room.open("b")


def test_what_nobody_used_for_long_is_unloaded(
    room: EngineRoom, loader: Loader, clock: Clock, metrics: Metrics
) -> None:
    for model_id in ("idle", "used", "kept"):
        room.open(model_id).close()
    assert metrics.total("model_loaded") == 3
    clock.now += 50
    room.open("used").close()
    assert room.sweep() == []
    clock.now += 11
    assert room.sweep() == ["idle"]
    assert (room.is_loaded("idle"), loader.made("idle")[0].closed) == (False, True)
    assert sorted(room.loaded()) == ["kept", "used"]
    assert metrics.total("model_loaded") == 2
    room.open("idle")
    assert len(loader.made("idle")) == 2


def test_a_request_that_takes_long_is_use(room: EngineRoom, clock: Clock) -> None:
    ticket = room.open("a")
    clock.now += 1000
    assert room.sweep() == []
    ticket.close()
    clock.now += 59
    assert room.sweep() == []
    clock.now += 2
    assert room.sweep() == ["a"]


def test_without_a_time_nothing_is_unloaded(loader: Loader, metrics: Metrics, clock: Clock) -> None:
    room = EngineRoom(InProcessHosts(loader), metrics=metrics, clock=clock)
    room.open("a").close()
    clock.now += 1e9
    assert room.sweep() == []
    room.close(0)


def test_unloading_lets_open_requests_finish_and_new_ones_load_it_again(
    room: EngineRoom, loader: Loader
) -> None:
    ticket = room.open("a")
    with ThreadPoolExecutor(2) as pool:
        unloading = pool.submit(room.unload, "a")
        while room.is_loaded("a"):
            pass
        newcomer = pool.submit(room.open, "a")
        assert ticket.submit(SECOND, DecodeOptions()).result(LONGEST_WAIT_S).segments
        assert not loader.made()[0].closed
        ticket.close()
        unloading.result(LONGEST_WAIT_S)
        again = newcomer.result(LONGEST_WAIT_S)
    assert again.submit(SECOND, DecodeOptions()).result(LONGEST_WAIT_S).segments
    assert [engine.closed for engine in loader.made()] == [True, False]
    room.unload("never seen")


def test_nobody_is_turned_away_because_a_model_is_just_being_unloaded(
    room: EngineRoom, loader: Loader, clock: Clock
) -> None:
    def use(_: int) -> int:
        ticket = room.open("a")
        heard = ticket.submit(SECOND, DecodeOptions()).result(LONGEST_WAIT_S)
        ticket.close()
        return len(heard.segments)

    stop = threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            clock.now += 100
            room.sweep()

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(use, range(200))) == [1] * 200
    finally:
        stop.set()
        sweeper.join()
    assert all(engine.closed for engine in loader.made()[:-1])


def test_closing_refuses_newcomers_and_closes_every_engine(room: EngineRoom, loader: Loader) -> None:
    for model_id in ("a", "b"):
        room.open(model_id).close()
    room.close(LONGEST_WAIT_S)
    assert all(engine.closed for engines in loader.engines.values() for engine in engines)
    for model_id in ("a", "new"):
        with pytest.raises(ShuttingDown):
            room.open(model_id)
        with pytest.raises(ShuttingDown):
            room.queue(model_id)
    assert loader.made("new") == []


def test_a_model_still_loading_when_it_closes_is_closed_once_loaded(room: EngineRoom, loader: Loader) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def slow(model_id: str) -> None:
        loading.set()
        assert go_on.wait(LONGEST_WAIT_S)

    loader.before = slow
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(room.open, "a")
        assert loading.wait(LONGEST_WAIT_S)
        room.close(0)
        go_on.set()
        with pytest.raises(ShuttingDown):
            first.result(LONGEST_WAIT_S)
    assert loader.made()[0].closed


def test_what_was_wished_of_a_device_and_not_had_is_logged_when_a_model_is_loaded(
    loader: Loader, metrics: Metrics
) -> None:
    on = RunsOn("cpu, int8", ("no CUDA device was found; computing on the CPU",))
    room = EngineRoom(InProcessHosts(loader, runs_on={"wished": on}.get), metrics=metrics)
    with log_lines() as lines:
        room.queue("wished")
        room.queue("wished")
        room.queue("other")
    assert room.runs_on() == {"wished": on}
    room.close(0)
    told = [line for line in lines if line["level"] == "warning"]
    assert [(line["event"], line["model"]) for line in told] == [(on.notes[0], "wished")]


def test_queues_are_reported_by_class(loader: Loader, metrics: Metrics) -> None:
    held, release = threading.Semaphore(0), threading.Event()

    class Held(FakeEngine):
        def decode(self, windows, options, wanted=None):  # type: ignore[no-untyped-def]
            held.release()
            assert release.wait(LONGEST_WAIT_S)
            return super().decode(windows, options)

    room = EngineRoom(InProcessHosts(lambda model_id: Held()), metrics=metrics)
    ticket = room.open("a", Priority.BULK)
    for _ in range(2):  # a window for each worker, so that what follows waits
        ticket.submit(SECOND, DecodeOptions())
        assert held.acquire(timeout=LONGEST_WAIT_S)
    futures = [ticket.submit(SECOND, DecodeOptions()) for _ in range(3)]
    room.report_depths()
    assert metrics.total("queue_depth", model="a", priority="bulk") == 3
    assert metrics.total("queue_depth", model="a", priority="live") == 0
    release.set()
    for future in futures:
        future.result(LONGEST_WAIT_S)
    room.report_depths()
    assert metrics.total("queue_depth") == 0
    ticket.close()
    room.close(LONGEST_WAIT_S)


def test_an_engine_that_fails_leaves_the_room_as_it_is(metrics: Metrics) -> None:
    def breaks(window, options):  # type: ignore[no-untyped-def]
        raise EngineFailed("broken")

    room = EngineRoom(InProcessHosts(lambda model_id: FakeEngine(breaks)), metrics=metrics)
    ticket = room.open("a")
    with pytest.raises(EngineFailed):
        ticket.submit(SECOND, DecodeOptions()).result(LONGEST_WAIT_S)
    assert room.is_loaded("a")
    ticket.close()
    room.close(0)


@dataclass
class Sized(InProcessHosts):
    """Models of known size, that can be renewed beside the running one or not."""

    loader: Loader
    sizes: dict[str, int] = field(default_factory=dict)
    renews: bool = True
    renewed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.loader)

    def memory_bytes(self, model_id: str) -> int | None:
        return self.sizes.get(model_id)

    def renew(self, model_id: str) -> bool:
        self.renewed.append(model_id)
        return self.renews


@pytest.fixture
def hosts(loader: Loader) -> Sized:
    return Sized(loader, sizes={"a": 300, "b": 300, "c": 300, "kept": 300})


@pytest.fixture
def small_room(hosts: Sized, metrics: Metrics, clock: Clock) -> Iterator[EngineRoom]:
    room = EngineRoom(
        hosts, metrics=metrics, memory_budget_bytes=1000, keep=lambda: frozenset({"kept"}), clock=clock
    )
    yield room
    room.close(0)


def test_the_model_unused_for_longest_makes_room_for_another(small_room: EngineRoom, clock: Clock) -> None:
    for model_id in ("kept", "a", "b"):
        clock.now += 1
        small_room.open(model_id).close()
    clock.now += 1
    small_room.open("a").close()
    clock.now += 1
    small_room.open("c").close()
    assert set(small_room.loaded()) == {"kept", "a", "c"}


def test_a_model_in_use_is_not_unloaded_for_room(small_room: EngineRoom) -> None:
    tickets = [small_room.open(model_id) for model_id in ("a", "b", "c", "kept")]
    assert set(small_room.loaded()) == {"a", "b", "c", "kept"}
    tickets[1].close()
    assert small_room.sweep() == ["b"]


def test_a_model_whose_size_is_known_has_room_made_before_it_loads(
    small_room: EngineRoom, loader: Loader, hosts: Sized
) -> None:
    small_room.open("c").close()
    small_room.unload("c")
    for model_id in ("a", "b", "kept"):
        small_room.open(model_id).close()
    loader.before = lambda model_id: loaded_then.append(set(small_room.loaded()))
    loaded_then: list[set[str]] = []
    small_room.open("c").close()
    assert loaded_then == [{"b", "kept"}]


def test_a_model_is_renewed_beside_the_running_one_where_that_can_be_done(
    small_room: EngineRoom, hosts: Sized, loader: Loader
) -> None:
    small_room.open("a").close()
    small_room.renew("a")
    assert (hosts.renewed, len(loader.made())) == (["a"], 1)
    hosts.renews = False
    small_room.renew("a")
    assert [engine.closed for engine in loader.made()] == [True, False]
    small_room.renew("b")  # not in memory: loaded
    assert small_room.is_loaded("b")


def test_a_queue_that_is_over_is_replaced_by_the_next_request(room: EngineRoom, loader: Loader) -> None:
    room.open("a").close()
    room.loaded()["a"].close()
    assert not room.is_loaded("a")
    assert room.open("a").submit(SECOND, DecodeOptions()).result(LONGEST_WAIT_S).segments
    assert len(loader.made()) == 2
