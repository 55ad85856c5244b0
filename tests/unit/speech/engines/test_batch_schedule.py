"""The schedule in front of a simulated engine: events in order of their times, and nobody waits for any."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceforge.speech.engines.base import DecodeOptions
from voiceforge.speech.engines.batch_schedule import (
    FREE_WORKER_S,
    HEAVY_AFTER_S,
    HEAVY_BATCH_S,
    SHORT_BATCHES_S,
    Batch,
    Contender,
    NotYet,
    QueuedWindow,
    Schedule,
)
from voiceforge.speech.engines.tickets import Priority

PLAIN = DecodeOptions()
OPTIONS = [PLAIN, DecodeOptions(language="de")]


def contender(
    priority: Priority = Priority.INTERACTIVE, tenant: str = "t", taken_s: float = 0.0
) -> Contender:
    return Contender(priority, tenant, taken_s=taken_s)


@dataclass
class Simulation:
    """An engine of `workers` that decode `speed` seconds of audio a second, more in batches."""

    workers: int = 1
    rows: int = 4
    speed: float = 10.0
    gain: float = 1.0
    now: float = 0.0
    started: list[Batch[QueuedWindow]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.schedule: Schedule[QueuedWindow] = Schedule(self.workers)
        self.idle = self.workers
        self.numbers = itertools.count()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.when_done: dict[int, Callable[[], None]] = {}
        self.measured: float | None = None
        self.submitted: list[QueuedWindow] = []

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), what))

    def run(self, until: float = float("inf")) -> None:
        while self.events and self.events[0][0] <= until:
            self.now, _, what = heapq.heappop(self.events)
            what()
        self.now = max(self.now, until if until < float("inf") else self.now)

    def join(self, *contenders: Contender) -> None:
        for one in contenders:
            self.schedule.join(one, self.now)

    def submit(
        self,
        who: Contender,
        seconds: float,
        options: DecodeOptions = PLAIN,
        then: Callable[[], None] = lambda: None,
        *,
        begin: bool = True,
    ) -> QueuedWindow:
        window = QueuedWindow(who, options, seconds, next(self.numbers), self.now)
        self.submitted.append(window)
        self.when_done[window.order] = then
        self.schedule.add(window, self.now)
        if begin:
            self.begin()
        return window

    def begin(self) -> None:
        while self.idle:
            found = self.schedule.choose(
                self.now, idle_workers=self.idle, max_rows=self.rows, audio_s_per_s=self.measured
            )
            if isinstance(found, NotYet):
                if found.look_again_at is not None:
                    self.at(found.look_again_at, self.begin)
                return
            self.idle -= 1
            self.schedule.start(found, self.now)
            self.started.append(found)
            full = (len(found.windows) - 1) / max(1, self.rows - 1)
            seconds = found.seconds / self.speed / (1 + (self.gain - 1) * full)
            self.measured = found.seconds / seconds
            self.at(self.now + seconds, partial(self._done, found))

    def _done(self, batch: Batch[QueuedWindow]) -> None:
        self.schedule.finish(batch, self.now)
        self.idle += 1
        for window in batch.windows:
            self.when_done.pop(window.order)()
        self.begin()

    def long_file(self, who: Contender, seconds: Sequence[float] = (12.0,), *, ahead: int = 16) -> None:
        """Keeps so many windows waiting or running, for ever."""
        lengths = itertools.cycle(seconds)
        self.join(who)

        def more() -> None:
            self.submit(who, next(lengths), then=more)

        for _ in range(ahead):
            more()

    def short_requests(
        self,
        lengths: Sequence[Sequence[float]],
        *,
        pause_s: float = 0.0,
        overhead_s: float = 0.03,
        seed: int = 0,
    ) -> list[float]:
        """One client: a request with the windows of one of `lengths`, its answer, a pause, another.
        Returns the list into which the times go that they took."""
        rng = random.Random(seed)
        took: list[float] = []

        def begin() -> None:
            windows, began, who = rng.choice(lengths), self.now, contender()
            left = len(windows)

            def done() -> None:
                nonlocal left
                left -= 1
                if not left:
                    self.schedule.part(who, self.now)
                    took.append(self.now - began)
                    self.at(self.now + rng.uniform(0, 2 * pause_s), begin)

            def arrive() -> None:
                for seconds in windows:
                    self.submit(who, seconds, then=done)

            self.join(who)
            self.at(self.now + overhead_s, arrive)

        self.at(self.now + rng.uniform(0, 1.0), begin)
        return took

    def seconds_of(self, *contenders: Contender) -> float:
        return sum(w.seconds for batch in self.started for w in batch.windows if w.contender in contenders)


requests = st.lists(
    st.tuples(
        st.sampled_from(list(Priority)),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from([0.0, 1000.0]),
        st.lists(
            st.tuples(st.floats(0.1, 30.0), st.sampled_from(OPTIONS), st.floats(0.0, 20.0)), max_size=12
        ),
        st.none() | st.floats(0.0, 20.0),
    ),
    max_size=10,
)


@settings(max_examples=60)
@given(requests, st.integers(1, 3), st.integers(1, 8))
def test_nothing_is_lost_and_nothing_decoded_twice(asked: list, workers: int, rows: int) -> None:  # type: ignore[type-arg]
    sim = Simulation(workers=workers, rows=rows)
    gone: set[Contender] = set()

    def leave(who: Contender) -> None:
        gone.add(who)
        for order in who.waiting:
            sim.when_done.pop(order)
        sim.schedule.part(who, sim.now)
        sim.begin()

    def submit(who: Contender, seconds: float, options: DecodeOptions) -> None:
        if who not in gone:
            sim.submit(who, seconds, options)

    for priority, tenant, taken_s, windows, leaves_at in asked:
        who = contender(priority, tenant, taken_s)
        sim.join(who)
        for seconds, options, at in windows:
            sim.at(at, lambda who=who, seconds=seconds, options=options: submit(who, seconds, options))
        if leaves_at is not None:
            sim.at(leaves_at, lambda who=who: leave(who))
    sim.run()
    decoded = Counter(w.order for batch in sim.started for w in batch.windows)
    assert set(decoded.values()) <= {1}
    assert {w.order for w in sim.submitted if w.contender not in gone} <= set(decoded)
    assert not sim.when_done
    assert (len(sim.schedule), sim.idle) == (0, workers)
    for batch in sim.started:
        first = batch.windows[0]
        assert len(batch.windows) <= rows
        assert {w.options for w in batch.windows} == {first.options}
        assert {w.contender.priority for w in batch.windows} == {first.contender.priority}
        for window in batch.windows:
            shorter, longer = sorted((window.seconds, first.seconds))
            assert longer <= 3 * shorter or longer - shorter <= 3.0


def test_a_class_goes_before_the_next_and_within_it_who_came_first() -> None:
    sim = Simulation(rows=1)
    own = {priority: contender(priority) for priority in Priority}
    sim.join(*own.values())
    for priority in [Priority.BULK, Priority.INTERACTIVE, Priority.LIVE] * 2:
        sim.submit(own[priority], 1.0, begin=False)
    assert sim.schedule.seconds_before(Priority.INTERACTIVE) == 4.0
    sim.begin()
    sim.run()
    orders = [[w.order for w in batch.windows] for batch in sim.started]
    assert orders == [[2], [5], [1], [4], [0], [3]]


def test_tenants_have_equal_shares_however_much_they_ask_for() -> None:
    sim = Simulation(rows=4)
    many, few = [contender(tenant="a") for _ in range(20)], contender(tenant="b")
    for who in many:
        sim.long_file(who, ahead=4)
    sim.long_file(few, (3.0, 5.0, 4.0), ahead=16)
    sim.run(until=500)
    assert sim.seconds_of(few) == pytest.approx(sim.seconds_of(*many), rel=0.05)


def test_requests_of_a_tenant_have_equal_shares() -> None:
    sim = Simulation(workers=2, rows=4)
    files = [contender() for _ in range(3)]
    for who, lengths in zip(files, ([12.0], [1.0, 2.0], [30.0, 8.0]), strict=True):
        sim.long_file(who, lengths)
    sim.run(until=1000)
    shares = [sim.seconds_of(who) for who in files]
    assert max(shares) - min(shares) < 0.05 * sum(shares)


@given(st.lists(st.sampled_from([1.0, 6.0, 12.0, 30.0]), min_size=1, max_size=6), st.integers(1, 8))
def test_shares_converge_whatever_the_lengths(lengths: list[float], rows: int) -> None:
    sim = Simulation(rows=rows)
    one, other = contender(tenant="a"), contender(tenant="b")
    sim.long_file(one, lengths)
    sim.long_file(other, (5.0,))
    sim.run(until=400)
    # Nobody is ahead by more than a batch on either side.
    assert abs(sim.seconds_of(one) - sim.seconds_of(other)) <= 2 * rows * 30.0


def test_bulk_work_is_not_starved_by_endless_urgent_work() -> None:
    sim = Simulation(rows=1)
    sim.long_file(contender(Priority.LIVE), (1.0,), ahead=50)
    bulk = contender(Priority.BULK)
    sim.join(bulk)
    for _ in range(5):
        sim.submit(bulk, 1.0)
    sim.run(until=30)
    assert sim.seconds_of(bulk) == 5.0
    first = next(i for i, batch in enumerate(sim.started) if batch.windows[0].contender is bulk)
    assert first >= 100  # ten seconds: until then it is no business of the urgent
    turns = [i for i, batch in enumerate(sim.started) if batch.windows[0].contender is bulk]
    assert all(after - before == 8 for before, after in itertools.pairwise(turns))


def test_bulk_work_is_not_starved_by_a_long_file_beside_short_requests() -> None:
    sim = Simulation(workers=2, rows=4)
    sim.long_file(contender(), (6.0,), ahead=16)
    bulk = contender(Priority.BULK)
    sim.join(bulk)
    for _ in range(5):
        sim.submit(bulk, 6.0)
    for number in range(4):
        sim.short_requests([[6.0]], overhead_s=0.0, seed=number)
    sim.run(until=100)
    assert sim.seconds_of(bulk) == 30.0


def test_a_long_file_is_not_starved_by_an_endless_row_of_short_requests() -> None:
    sim = Simulation(workers=2, rows=4, speed=65.0)
    file = contender()
    sim.long_file(file)
    for number in range(32):
        sim.short_requests([[10.0]], seed=number)
    sim.run(until=60)
    before = sim.seconds_of(file)
    sim.run(until=120)
    assert sim.seconds_of(file) - before > 60.0  # of some 8000


SHORT = [[3.0], [6.5], [2.0], [10.5], [4.0], [9.5, 5.0], [11.0, 4.0], [8.0], [7.5, 2.5], [5.0]]


@pytest.mark.parametrize(
    ("clients", "pause_s"), [(1, 0.0), (1, 1.0), (1, 8.0), (2, 0.0), (4, 0.0), (16, 0.0), (16, 3.0)]
)
@pytest.mark.parametrize("engine", ["two cores", "one GPU"])
def test_short_requests_beside_a_long_file_keep_their_latency(
    engine: str, clients: int, pause_s: float
) -> None:
    def latency_s(*, beside: bool) -> float:
        sim = (
            Simulation(workers=2, rows=4, speed=65.0, gain=1.1)
            if engine == "two cores"
            else Simulation(workers=1, rows=16, speed=100.0, gain=8.0)
        )
        if beside:
            sim.long_file(contender(), (12.0, 9.0, 10.5, 6.0))
        sim.run(until=30)
        took = [sim.short_requests(SHORT, pause_s=pause_s, seed=number) for number in range(clients)]
        sim.run(until=330)
        return mean(itertools.chain.from_iterable(took))

    beside_s, alone_s = latency_s(beside=True), latency_s(beside=False)
    # A fast engine with one worker takes less for the request than for the short batch before it.
    assert beside_s < max(1.5 * alone_s, alone_s + 0.6 * HEAVY_BATCH_S)


def test_a_lone_long_file_fills_every_batch_on_every_worker() -> None:
    sim = Simulation(workers=2, rows=4)
    sim.long_file(contender())
    sim.run(until=300)
    assert Counter(len(batch.windows) for batch in sim.started[2:]) == {4: len(sim.started) - 2}
    assert sim.idle == 0


def test_equal_short_requests_share_full_batches() -> None:
    sim = Simulation(workers=2, rows=4)
    for number in range(16):
        sim.short_requests([[5.0]], overhead_s=0.0, seed=number)
    sim.run(until=300)
    assert mean(len(batch.windows) for batch in sim.started) > 3.8


def heavy_and_light(sim: Simulation) -> tuple[Contender, Contender]:
    heavy, light = contender(taken_s=HEAVY_AFTER_S), contender()
    sim.long_file(heavy)
    sim.join(light)
    return heavy, light


def test_a_light_request_finds_a_free_worker_once_light_ones_come() -> None:
    sim = Simulation(workers=2)
    _, light = heavy_and_light(sim)
    sim.submit(light, 1.0)
    for _ in range(20):
        sim.run(until=sim.now + 1.0)
        began = len(sim.started)
        sim.submit(light, 1.0)
        if sim.now > 10.0:  # what began before the first of them came has ended
            assert sim.started[began].windows[0].contender is light


def test_the_free_worker_is_given_back_when_no_more_come() -> None:
    sim = Simulation(workers=2)
    _, light = heavy_and_light(sim)
    sim.run(until=20)
    sim.submit(light, 1.0)
    sim.run(until=21)
    sim.schedule.part(light, sim.now)
    sim.run(until=sim.now + FREE_WORKER_S - 0.01)
    assert sim.idle == 1
    sim.run(until=sim.now + 0.02)
    assert sim.idle == 0


def test_batches_of_the_heavy_are_short_while_light_ones_come() -> None:
    sim = Simulation(workers=1, rows=16, speed=200.0)
    heavy, light = heavy_and_light(sim)
    sim.run(until=2.0)
    sim.submit(light, 1.0)
    sim.run(until=3.0)
    sim.schedule.part(light, sim.now)
    began = len(sim.started)
    sim.run(until=3.0 + SHORT_BATCHES_S)
    between = sim.started[began + 1 :]
    assert {batch.windows[0].contender for batch in between} == {heavy}
    assert max(batch.seconds for batch in between) <= HEAVY_BATCH_S * sim.speed
    assert max(len(batch.windows) for batch in between) > 1
    began = len(sim.started)
    sim.run(until=sim.now + 10.0)
    assert max(len(batch.windows) for batch in sim.started[began:]) > max(len(b.windows) for b in between)


def test_light_and_heavy_windows_do_not_share_a_batch() -> None:
    sim = Simulation(workers=1, rows=8)
    sim.join(heavy := contender(taken_s=HEAVY_AFTER_S), light := contender())
    for who in (heavy, light, heavy, light):
        sim.submit(who, 5.0, begin=False)
    sim.begin()
    sim.run()
    for batch in sim.started:
        assert len({w.contender for w in batch.windows}) == 1
    assert [len(batch.windows) for batch in sim.started] == [2, 1, 1]


def test_bulk_work_by_itself_is_not_slowed() -> None:
    sim = Simulation(workers=2, rows=4)
    for number in range(4):
        sim.long_file(contender(Priority.BULK, tenant=str(number)))
    sim.run(until=100)
    assert mean(len(batch.windows) for batch in sim.started) > 3.8


def test_no_worker_idles_while_light_windows_wait() -> None:
    sim = Simulation(workers=3, rows=4)
    everyone = [contender() for _ in range(5)]
    sim.join(*everyone)
    for who in everyone:
        sim.submit(who, 5.0)
    assert sim.idle == 0
