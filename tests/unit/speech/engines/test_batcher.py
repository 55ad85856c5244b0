from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from voiceforge.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineFailed,
    InvalidRequest,
    OutOfDeviceMemory,
    Overloaded,
    ShuttingDown,
)
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import DecodeOptions, Engine, Hypothesis, HypothesisSegment
from voiceforge.speech.engines.batcher import Batcher, BatcherTicket, DecodeInProgress
from voiceforge.speech.engines.tickets import BatcherLimits, Priority
from voiceforge.testing.fake_engine import FAKE_CAPABILITIES, FakeEngine, Script

PLAIN = DecodeOptions()
LONGEST_WAIT_S = 20
"""Nothing here takes a second; this only keeps a broken batcher from hanging the test."""


def window(seconds: float, mark: int = 0) -> Waveform:
    """A window that says which it is by its first sample."""
    samples = np.full(int(seconds * SAMPLE_RATE_HZ), 0.1, np.float32)
    samples[0] = mark
    return samples


def mark_of(samples: Waveform) -> int:
    return int(samples[0])


def echo(samples: Waveform, options: DecodeOptions) -> Hypothesis:
    return Hypothesis((HypothesisSegment(0.0, len(samples) / SAMPLE_RATE_HZ, str(mark_of(samples))),))


def text_of(future: Future[Hypothesis]) -> str:
    return future.result(LONGEST_WAIT_S).segments[0].text


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Observer:
    batches: list[tuple[str, int, float, float]] = field(default_factory=list)
    waits: list[tuple[str, Priority, float]] = field(default_factory=list)

    def batch_done(self, model: str, rows: int, audio_s: float, seconds: float) -> None:
        self.batches.append((model, rows, audio_s, seconds))

    def window_waited(self, model: str, priority: Priority, seconds: float) -> None:
        self.waits.append((model, priority, seconds))


class HeldEngine(FakeEngine):
    """Stands still on the window marked -1 until released: what is queued meanwhile is then taken in the
    order that the batcher chooses. `order` holds the marks of every batch after that."""

    def __init__(self, script: Script = echo, *, rows: int = 8, workers: int = 1) -> None:
        super().__init__(
            script,
            capabilities=replace(FAKE_CAPABILITIES, max_batch_rows=rows, parallel_decodes=workers),
        )
        self.held = threading.Semaphore(0)
        self.release = threading.Event()
        self.order: list[list[int]] = []

    def decode(self, windows, options, wanted=None):  # type: ignore[no-untyped-def]
        if [mark_of(w) for w in windows] == [-1]:
            self.held.release()
            assert self.release.wait(LONGEST_WAIT_S)
        else:
            self.order.append([mark_of(w) for w in windows])
        return super().decode(windows, options)


@contextmanager
def running(engine: Engine, **how: object) -> Iterator[Batcher]:
    batcher = Batcher(engine, **how)  # type: ignore[arg-type]
    try:
        yield batcher
    finally:
        if isinstance(engine, HeldEngine):
            engine.release.set()
        batcher.close(grace_s=0)


@contextmanager
def standing_still(engine: HeldEngine, **how: object) -> Iterator[Batcher]:
    """A batcher whose workers are all held, so that everything submitted waits."""
    with running(engine, **how) as batcher:
        stopper = batcher.open(Priority.LIVE)
        for _ in range(engine.capabilities.parallel_decodes):
            stopper.submit(window(0.1, -1), PLAIN)
            assert engine.held.acquire(timeout=LONGEST_WAIT_S)
        stopper.close()
        yield batcher


def finish(engine: HeldEngine, futures: list[Future[Hypothesis]]) -> None:
    engine.release.set()
    assert not wait(futures, LONGEST_WAIT_S).not_done


def test_every_window_gets_its_own_answer() -> None:
    with running(FakeEngine(echo)) as batcher:
        ticket = batcher.open()
        futures = [ticket.submit(window(1 + i % 5, i), PLAIN) for i in range(50)]
        assert [text_of(f) for f in futures] == [str(i) for i in range(50)]


def test_the_more_urgent_class_goes_first_and_within_it_who_came_first() -> None:
    engine = HeldEngine(rows=1)
    with standing_still(engine) as batcher:
        tickets = {priority: batcher.open(priority) for priority in Priority}
        order = [Priority.BULK, Priority.INTERACTIVE, Priority.LIVE] * 2
        futures = [tickets[p].submit(window(1, 10 * p + i // 3), PLAIN) for i, p in enumerate(order)]
        assert batcher.waiting() == {Priority.LIVE: 2, Priority.INTERACTIVE: 2, Priority.BULK: 2}
        finish(engine, futures)
    assert engine.order == [[0], [1], [10], [11], [20], [21]]


def test_windows_of_like_length_share_a_batch() -> None:
    engine = HeldEngine(rows=3)
    with standing_still(engine) as batcher:
        ticket = batcher.open()
        lengths = [2.0, 9.0, 2.1, 8.0, 1.9, 8.5, 5.0]
        finish(engine, [ticket.submit(window(s, i), PLAIN) for i, s in enumerate(lengths)])
    assert [sorted(batch) for batch in engine.order] == [[0, 2, 4], [1, 3, 5], [6]]


def test_only_equal_options_and_one_class_share_a_batch() -> None:
    engine = HeldEngine()
    german = DecodeOptions(language="de")
    with standing_still(engine) as batcher:
        first, other, bulk = batcher.open(), batcher.open(), batcher.open(Priority.BULK)
        futures = [
            first.submit(window(1, 1), PLAIN),
            bulk.submit(window(1, 2), PLAIN),
            first.submit(window(1, 3), german),
            other.submit(window(1, 4), PLAIN),  # another request's: batches know no requests
        ]
        finish(engine, futures)
    assert engine.order == [[1, 4], [3], [2]]
    assert [call.options for call in engine.calls[1:]] == [PLAIN, german, PLAIN]


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_a_batch_has_no_more_rows_than_the_engine_takes(rows: int) -> None:
    engine = HeldEngine(rows=rows)
    with standing_still(engine) as batcher:
        ticket = batcher.open()
        finish(engine, [ticket.submit(window(1, i), PLAIN) for i in range(20)])
    assert max(map(len, engine.order)) == rows
    assert sorted(mark for batch in engine.order for mark in batch) == list(range(20))


def test_workers_decode_at_the_same_time() -> None:
    together = threading.Barrier(3)

    def meets(samples: Waveform, options: DecodeOptions) -> Hypothesis:
        together.wait(LONGEST_WAIT_S)
        return echo(samples, options)

    capabilities = replace(FAKE_CAPABILITIES, max_batch_rows=1, parallel_decodes=3)
    with running(FakeEngine(meets, capabilities=capabilities)) as batcher:
        ticket = batcher.open()
        assert [text_of(f) for f in [ticket.submit(window(1, i), PLAIN) for i in range(3)]] == ["0", "1", "2"]


def fails_on(bad: int, error: BaseException) -> Script:
    def script(samples: Waveform, options: DecodeOptions) -> Hypothesis:
        if mark_of(samples) == bad:
            raise error
        return echo(samples, options)

    return script


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (EngineFailed("the runtime broke"), EngineFailed),
        (InvalidRequest("the prompt is too long"), InvalidRequest),
        (ZeroDivisionError("a defect"), EngineFailed),
        (MemoryError(), OutOfDeviceMemory),
        (KeyboardInterrupt(), EngineFailed),  # as a panic of a native library: no Exception
    ],
)
def test_one_bad_window_does_not_fail_those_beside_it(raised: BaseException, seen: type[Exception]) -> None:
    engine = HeldEngine(fails_on(2, raised))
    with standing_still(engine) as batcher:
        ticket = batcher.open()
        futures = [ticket.submit(window(1, i), PLAIN) for i in range(5)]
        finish(engine, futures)
        with pytest.raises(seen):
            futures[2].result()
        assert [text_of(f) for i, f in enumerate(futures) if i != 2] == ["0", "1", "3", "4"]
        assert text_of(ticket.submit(window(1, 7), PLAIN)) == "7"  # the worker lives


def test_an_engine_that_answers_for_too_few_windows_has_failed() -> None:
    class Forgetful(FakeEngine):
        def decode(self, windows, options, wanted=None):  # type: ignore[no-untyped-def]
            return super().decode(windows, options)[:-1]

    with running(Forgetful(echo)) as batcher:
        ticket = batcher.open()
        for _ in range(3):  # more often than there are workers
            with pytest.raises(EngineFailed):
                ticket.submit(window(1), PLAIN).result(LONGEST_WAIT_S)


class SmallDevice(HeldEngine):
    """Has memory for so many rows and no more."""

    fitting = 2

    def decode(self, windows, options, wanted=None):  # type: ignore[no-untyped-def]
        heard = super().decode(windows, options)
        if len(windows) > self.fitting:
            raise OutOfDeviceMemory("no memory left")
        return heard


def test_a_batch_that_does_not_fit_is_halved_until_it_does() -> None:
    engine = SmallDevice(rows=8)
    with standing_still(engine) as batcher:
        ticket = batcher.open()
        futures = [ticket.submit(window(1, i), PLAIN) for i in range(8)]
        finish(engine, futures)
        assert [text_of(f) for f in futures] == [str(i) for i in range(8)]
    whole, first, second = [0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7]
    assert engine.order == [whole, first, [0, 1], [2, 3], second, [4, 5], [6, 7]]


def test_the_rows_that_fit_are_remembered_for_a_while() -> None:
    clock = Clock()
    engine = SmallDevice(rows=8)
    with standing_still(engine, clock=clock) as batcher:
        ticket = batcher.open()
        finish(engine, [ticket.submit(window(1, i), PLAIN) for i in range(40)])
    assert max(map(len, engine.order[7:])) == 2


def test_a_window_too_large_for_the_device_fails_by_itself() -> None:
    engine = SmallDevice(rows=4)
    engine.fitting = 0
    with standing_still(engine) as batcher:
        ticket = batcher.open()
        futures = [ticket.submit(window(1, i), PLAIN) for i in range(4)]
        engine.release.set()
        for future in futures:
            with pytest.raises(OutOfDeviceMemory):
                future.result(LONGEST_WAIT_S)


def test_what_waits_past_its_deadline_fails_though_no_worker_is_free() -> None:
    engine = HeldEngine()
    with standing_still(engine) as batcher:
        hasty, patient = batcher.open(deadline_s=0.02), batcher.open(deadline_s=1e12)
        late = [hasty.submit(window(1, i), PLAIN) for i in range(3)]
        kept = patient.submit(window(1, 9), PLAIN)
        for future in late:
            with pytest.raises(DeadlineExceeded):
                future.result(LONGEST_WAIT_S)
        assert sum(batcher.waiting().values()) == 1
        with pytest.raises(DeadlineExceeded):
            hasty.submit(window(1, 4), PLAIN).result(LONGEST_WAIT_S)
        hasty.close()
        finish(engine, [kept])
        assert text_of(kept) == "9"
    assert engine.order == [[9]]


def test_a_decode_past_its_deadline_may_end_and_is_thrown_away() -> None:
    engine = HeldEngine()
    with running(engine) as batcher:
        ticket = batcher.open(deadline_s=0.02)
        held = ticket.submit(window(1, -1), PLAIN)
        assert engine.held.acquire(timeout=LONGEST_WAIT_S)
        with pytest.raises(DeadlineExceeded):
            held.result(LONGEST_WAIT_S)  # and nobody waits for an engine that is stuck
        engine.release.set()
        assert text_of(batcher.open().submit(window(1, 5), PLAIN)) == "5"
        with pytest.raises(DeadlineExceeded):
            held.result()


def test_a_worker_that_comes_back_does_not_decode_what_is_overdue() -> None:
    clock = Clock()
    engine = HeldEngine()
    with standing_still(engine, clock=clock) as batcher:
        ticket = batcher.open(deadline_s=1000.0)
        late = ticket.submit(window(1, 1), PLAIN)
        clock.now += 1000.0
        engine.release.set()
        with pytest.raises(DeadlineExceeded):
            late.result(LONGEST_WAIT_S)
        assert text_of(batcher.open().submit(window(1, 2), PLAIN)) == "2"
    assert engine.order == [[2]]


def test_without_any_time_nothing_is_decoded() -> None:
    engine = FakeEngine(echo)
    with running(engine) as batcher:
        ticket = batcher.open(deadline_s=0.0)
        with pytest.raises(DeadlineExceeded):
            ticket.submit(window(1), PLAIN).result(LONGEST_WAIT_S)
    assert not engine.calls


def test_what_was_decoded_in_time_stays_so() -> None:
    clock = Clock()
    with running(FakeEngine(echo), clock=clock) as batcher:
        ticket = batcher.open(deadline_s=5.0)
        done = ticket.submit(window(1, 1), PLAIN)
        assert text_of(done) == "1"
        clock.now += 6.0
        with pytest.raises(DeadlineExceeded):
            ticket.submit(window(1, 2), PLAIN).result(LONGEST_WAIT_S)
        assert text_of(done) == "1"


def test_the_oldest_decode_is_told() -> None:
    clock = Clock()
    engine = HeldEngine(workers=2)
    with running(engine, clock=clock) as batcher:
        assert batcher.longest_running() is None
        ticket = batcher.open()
        held = []
        for seconds in (1.5, 2.0):
            held.append(ticket.submit(window(seconds, -1), PLAIN))
            assert engine.held.acquire(timeout=LONGEST_WAIT_S)
            clock.now += 30.0
        assert batcher.longest_running() == DecodeInProgress(age_s=60.0, audio_s=1.5, rows=1)
        finish(engine, held)
        batcher.close(grace_s=0)
        assert batcher.longest_running() is None


def test_closing_a_ticket_drops_what_it_has_waiting_and_nothing_of_others() -> None:
    engine = HeldEngine()
    with standing_still(engine) as batcher:
        leaving, staying = batcher.open(), batcher.open()
        dropped = [leaving.submit(window(1, i), PLAIN) for i in range(3)]
        kept = staying.submit(window(1, 9), PLAIN)
        leaving.close()
        leaving.close()
        assert sum(batcher.waiting().values()) == 1
        for future in [*dropped, leaving.submit(window(1, 4), PLAIN)]:
            with pytest.raises(CancelledError):
                future.result(LONGEST_WAIT_S)
        finish(engine, [kept])
    assert engine.order == [[9]]


def test_closing_a_ticket_waits_for_no_engine() -> None:
    engine = HeldEngine()
    with running(engine) as batcher:
        ticket = batcher.open()
        held = ticket.submit(window(1, -1), PLAIN)
        assert engine.held.acquire(timeout=LONGEST_WAIT_S)
        ticket.close()
        with pytest.raises(CancelledError):
            held.result(LONGEST_WAIT_S)
        assert batcher.open_tickets == 0
        engine.release.set()
        assert text_of(batcher.open().submit(window(1, 5), PLAIN)) == "5"


def test_a_window_its_caller_cancelled_is_not_decoded() -> None:
    engine = HeldEngine()
    with standing_still(engine) as batcher:
        ticket = batcher.open()
        unwanted, wanted = (ticket.submit(window(1, i), PLAIN) for i in range(2))
        assert unwanted.cancel()
        finish(engine, [wanted])
    assert engine.order == [[1]]


def test_no_more_requests_than_allowed() -> None:
    with running(FakeEngine(echo), limits=BatcherLimits(max_tickets=2)) as batcher:
        first, _ = batcher.open(), batcher.open()
        with pytest.raises(Overloaded) as refused:
            batcher.open(Priority.LIVE)
        assert refused.value.retry_after_s == 1.0
        first.close()
        batcher.open()
        assert batcher.open_tickets == 2


def test_when_too_much_waits_new_requests_are_refused_and_old_ones_are_not() -> None:
    engine = HeldEngine()
    with standing_still(engine, limits=BatcherLimits(max_queued_s=5.0)) as batcher:
        ticket = batcher.open()
        futures = [ticket.submit(window(2.0, i), PLAIN) for i in range(3)]
        with pytest.raises(Overloaded):
            batcher.open()
        futures += [ticket.submit(window(2.0, i), PLAIN) for i in range(3, 6)]
        finish(engine, futures)
        batcher.open()


def test_the_time_to_come_back_follows_from_the_speed_measured() -> None:
    clock = Clock()
    release = threading.Event()

    def twice_as_fast_as_speech(samples: Waveform, options: DecodeOptions) -> Hypothesis:
        if mark_of(samples) == 1:
            clock.now += len(samples) / SAMPLE_RATE_HZ / 2
        else:
            assert release.wait(LONGEST_WAIT_S)
        return echo(samples, options)

    capabilities = replace(FAKE_CAPABILITIES, max_batch_rows=1, parallel_decodes=1)
    engine = FakeEngine(twice_as_fast_as_speech, capabilities=capabilities)
    with running(engine, limits=BatcherLimits(max_queued_s=100.0), clock=clock) as batcher:
        ticket = batcher.open()
        for _ in range(2):
            ticket.submit(window(8.0, 1), PLAIN).result(LONGEST_WAIT_S)
        futures = [ticket.submit(window(20.0), PLAIN) for _ in range(8)]
        with pytest.raises(Overloaded) as refused:
            batcher.open()
        # 140 s wait, or 160 if the first has not been taken yet: two seconds of them a second.
        assert refused.value.retry_after_s in (20.0, 30.0)
        release.set()
        assert not wait(futures, LONGEST_WAIT_S).not_done


def test_it_reports_batches_and_waits() -> None:
    clock, observer = Clock(), Observer()
    engine = HeldEngine()
    with standing_still(engine, clock=clock, observer=observer) as batcher:
        ticket = batcher.open(Priority.BULK)
        futures = [ticket.submit(window(1.5), PLAIN) for _ in range(2)]
        clock.now += 70.0
        finish(engine, futures)
    assert [(m, rows, audio_s) for m, rows, audio_s, _ in observer.batches] == [
        ("fake", 1, 0.1),
        ("fake", 2, 3.0),
    ]
    assert observer.waits == [("fake", Priority.LIVE, 0.0), *[("fake", Priority.BULK, 70.0)] * 2]


def test_bulk_work_is_not_starved_by_a_stream_of_more_urgent_work() -> None:
    clock = Clock()
    engine = HeldEngine(rows=1)
    with standing_still(engine, clock=clock) as batcher:
        bulk, live = batcher.open(Priority.BULK), batcher.open(Priority.LIVE)
        futures = [bulk.submit(window(1, 100 + i), PLAIN) for i in range(3)]
        futures += [live.submit(window(1, i), PLAIN) for i in range(40)]
        clock.now += 60.0
        finish(engine, futures)
    order = [batch[0] for batch in engine.order]
    places = [order.index(mark) for mark in (100, 101, 102)]
    assert all(after - before == 8 for before, after in itertools.pairwise(places))
    assert places[0] < 8


def test_urgent_work_waits_for_nobody_who_came_just_now() -> None:
    engine = HeldEngine(rows=1)
    with standing_still(engine, clock=Clock()) as batcher:
        bulk, live = batcher.open(Priority.BULK), batcher.open(Priority.LIVE)
        futures = [bulk.submit(window(1, 100), PLAIN)]
        futures += [live.submit(window(1, i), PLAIN) for i in range(40)]
        finish(engine, futures)
    assert engine.order[-1] == [100]


def come_closely(batcher: Batcher, engine: HeldEngine, clock: Clock) -> list[BatcherTicket]:
    """Two requests whose windows come a millisecond apart."""
    tickets = [batcher.open(), batcher.open()]
    futures = []
    for number in range(6):
        clock.now += 0.001
        futures.append(tickets[number % 2].submit(window(1, number), PLAIN))
    finish(engine, futures)
    clock.now += 0.001
    return tickets


def test_a_batch_with_room_waits_for_a_window_that_is_due() -> None:
    clock = Clock()
    engine = HeldEngine(rows=2)
    with standing_still(engine, clock=clock) as batcher:
        first, second = come_closely(batcher, engine, clock)
        futures = [first.submit(window(1, 10), PLAIN)]  # for the worker no time passes until the next comes
        futures.append(second.submit(window(1, 11), PLAIN))
        finish(engine, futures)
    assert engine.order[-1] == [10, 11]


def test_but_no_longer_than_it_is_told() -> None:
    clock = Clock()
    engine = HeldEngine(rows=2)
    with standing_still(engine, clock=clock) as batcher:
        first, _ = come_closely(batcher, engine, clock)
        future = first.submit(window(1, 10), PLAIN)
        clock.now += BatcherLimits().batch_wait_s
        finish(engine, [future])
    assert engine.order[-1] == [10]


@pytest.mark.parametrize("limits", [BatcherLimits(batch_wait_s=0.0), BatcherLimits()])
def test_a_lone_request_never_waits(limits: BatcherLimits) -> None:
    clock = Clock()
    engine = HeldEngine(rows=2)
    with standing_still(engine, clock=clock, limits=limits) as batcher:
        first, second = come_closely(batcher, engine, clock)
        if limits.batch_wait_s:
            second.close()
        finish(engine, [first.submit(window(1, 10), PLAIN)])
    assert engine.order[-1] == [10]


def test_closing_lets_open_requests_finish_and_admits_no_new_ones() -> None:
    engine = HeldEngine()
    batcher = Batcher(engine)
    ticket = batcher.open()
    held = ticket.submit(window(0.1, -1), PLAIN)
    assert engine.held.acquire(timeout=LONGEST_WAIT_S)
    queued = ticket.submit(window(1, 1), PLAIN)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(batcher.close, LONGEST_WAIT_S)
        while not refuses(batcher):
            pass
        later = ticket.submit(window(1, 2), PLAIN)  # a request that is half-way is not cut off
        engine.release.set()
        assert (text_of(held), text_of(queued), text_of(later)) == ("-1", "1", "2")
        assert not engine.closed
        ticket.close()
        closing.result(LONGEST_WAIT_S)
    assert engine.closed
    with pytest.raises(ShuttingDown):
        batcher.open()


def refuses(batcher: Batcher) -> bool:
    try:
        batcher.open().close()
    except ShuttingDown:
        return True
    return False


def test_closing_without_grace_drops_what_waits_and_waits_for_what_runs() -> None:
    engine = HeldEngine()
    batcher = Batcher(engine)
    ticket = batcher.open()
    held = ticket.submit(window(0.1, -1), PLAIN)
    assert engine.held.acquire(timeout=LONGEST_WAIT_S)
    queued = ticket.submit(window(1, 1), PLAIN)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(batcher.close, 0.0)
        with pytest.raises(ShuttingDown):
            queued.result(LONGEST_WAIT_S)
        assert not closing.done()
        engine.release.set()
        closing.result(LONGEST_WAIT_S)
    assert text_of(held) == "-1"
    with pytest.raises(ShuttingDown):
        ticket.submit(window(1), PLAIN)
    batcher.close()


def test_under_many_threads_every_window_is_answered_or_cancelled() -> None:
    def sometimes_fails(samples: Waveform, options: DecodeOptions) -> Hypothesis:
        if mark_of(samples) % 17 == 3:
            raise EngineFailed("now and then")
        return echo(samples, options)

    capabilities = replace(FAKE_CAPABILITIES, max_batch_rows=4, parallel_decodes=3)
    engine = FakeEngine(sometimes_fails, capabilities=capabilities)

    def client(number: int) -> list[tuple[int, bool, Future[Hypothesis]]]:
        rng = random.Random(number)
        asked: list[tuple[int, bool, Future[Hypothesis]]] = []
        for request in range(6):
            ticket = batcher.open(rng.choice(list(Priority)))
            leaves = rng.random() < 0.3
            for i in range(rng.randrange(12)):
                mark = number * 1000 + request * 100 + i
                options = rng.choice([PLAIN, DecodeOptions(language="de")])
                asked.append((mark, leaves, ticket.submit(window(0.1 + 0.1 * rng.random(), mark), options)))
            if not leaves:
                wait([future for *_, future in asked], LONGEST_WAIT_S)
            ticket.close()
        return asked

    with running(engine) as batcher, ThreadPoolExecutor(8) as pool:
        asked = [entry for entries in pool.map(client, range(8)) for entry in entries]
        assert not wait([future for *_, future in asked], LONGEST_WAIT_S).not_done
        for mark, leaves, future in asked:
            if future.cancelled():
                assert leaves
            elif mark % 17 == 3:
                assert isinstance(future.exception(), EngineFailed)
            else:
                assert text_of(future) == str(mark)
        assert (batcher.open_tickets, sum(batcher.waiting().values())) == (0, 0)
    assert engine.closed


class Stepping(FakeEngine):
    """Asks before each of many steps whether anybody waits, as an engine does that can stop."""

    def __init__(self) -> None:
        super().__init__(echo, capabilities=replace(FAKE_CAPABILITIES, parallel_decodes=1))
        self.begun = threading.Event()
        self.stopped = threading.Event()

    def decode(self, windows, options, wanted):  # type: ignore[no-untyped-def]
        if mark_of(windows[0]) < 0:
            self.begun.set()
            give_up_at = time.monotonic() + LONGEST_WAIT_S
            while wanted():
                assert time.monotonic() < give_up_at
                time.sleep(0.001)
            self.stopped.set()
            raise Cancelled("nobody waits for this any more")
        return super().decode(windows, options)


def test_what_nobody_waits_for_any_more_stops_in_the_middle() -> None:
    engine = Stepping()
    with running(engine) as batcher:
        leaving, staying = batcher.open(), batcher.open()
        left = leaving.submit(window(1, -1), PLAIN)
        assert engine.begun.wait(LONGEST_WAIT_S)
        next_one = staying.submit(window(1, 5), PLAIN)
        leaving.close()
        assert engine.stopped.wait(LONGEST_WAIT_S)
        assert text_of(next_one) == "5"
        assert left.cancelled()


def test_who_shares_a_batch_with_one_that_leaves_is_answered() -> None:
    asked: list[bool] = []

    class Leaving(HeldEngine):
        def decode(self, windows, options, wanted):  # type: ignore[no-untyped-def]
            if len(windows) == 2:
                leaving.close()
                asked.append(wanted())
            return super().decode(windows, options, wanted)

    engine = Leaving()
    with standing_still(engine) as batcher:
        leaving, staying = batcher.open(), batcher.open()
        gone, kept = leaving.submit(window(1, 2), PLAIN), staying.submit(window(1, 3), PLAIN)
        engine.release.set()
        assert text_of(kept) == "3"
        assert gone.cancelled()
        assert asked == [True]
