"""What every queue in front of a model owes its callers, wherever the model lives."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from voiceforge.errors import DeadlineExceeded, EngineFailed, Overloaded, ShuttingDown
from voiceforge.infra.enginehost.child_process import ChildProcessHosts
from voiceforge.infra.enginehost.keeper import HostKeeper
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import DecodeOptions, Hypothesis
from voiceforge.speech.engines.batcher import Batcher
from voiceforge.speech.engines.tickets import BatcherLimits, BatchObserver, DecodeQueue, Priority, Ticket
from voiceforge.testing.fake_engine import FAKE_CAPABILITIES, FAKE_MODEL
from voiceforge.testing.fake_engine_host import COMMAND, FAIL, PartPlayer, fake_spec
from voiceforge.testing.hold import Hold

PLAIN = DecodeOptions()
WORKERS = FAKE_CAPABILITIES.parallel_decodes
LONGEST_WAIT_S = 20
"""Nothing here takes seconds; this only keeps a broken queue from hanging the test."""


@dataclass
class Observer:
    """rows: decoded so far. begun: the classes of windows, as they were taken."""

    rows: int = 0
    begun: list[Priority] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    def batch_done(self, model: str, rows: int, audio_s: float, seconds: float) -> None:
        with self.news:
            self.rows += rows
            self.news.notify_all()

    def window_waited(self, model: str, priority: Priority, seconds: float) -> None:
        self.begun.append(priority)

    def wait_for_rows(self, count: int) -> None:
        with self.news:
            assert self.news.wait_for(lambda: self.rows >= count, LONGEST_WAIT_S)


@dataclass(frozen=True)
class Case:
    """build: a queue in front of a `PartPlayer`; left open or closed, it is gone after the context."""

    name: str
    build: Callable[[BatchObserver, BatcherLimits], AbstractContextManager[DecodeQueue]]


@contextmanager
def in_process(observer: BatchObserver, limits: BatcherLimits) -> Iterator[DecodeQueue]:
    batcher = Batcher(PartPlayer(), limits=limits, observer=observer)
    yield batcher
    batcher.close(0.0)


@contextmanager
def hosted(observer: BatchObserver, limits: BatcherLimits) -> Iterator[DecodeQueue]:
    with closing(HostKeeper(COMMAND)) as keeper:
        hosts = ChildProcessHosts(keeper, lambda model_id: fake_spec(model_id, limits=limits))
        queue = hosts.start(FAKE_MODEL.id, observer)
        yield queue
        queue.close(0.0)


@pytest.fixture(params=[Case("in_process", in_process), Case("hosted", hosted)], ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    chosen: Case = request.param
    return chosen


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    with closing(Hold(tmp_path)) as made:
        yield made


@pytest.fixture
def observer() -> Observer:
    return Observer()


@pytest.fixture
def start(case: Case, observer: Observer, hold: Hold) -> Iterator[Callable[..., DecodeQueue]]:
    """Starts queues; what is held is let go before they end."""
    with ExitStack() as queues:

        def start(**limits: float) -> DecodeQueue:
            return queues.enter_context(case.build(observer, BatcherLimits(**limits)))  # type: ignore[arg-type]

        yield start
        hold.release()


@pytest.fixture
def queue(start: Callable[..., DecodeQueue]) -> DecodeQueue:
    return start()


def window(half_seconds: int) -> Waveform:
    """Its text has so many words."""
    return np.full(half_seconds * SAMPLE_RATE_HZ // 2, 0.1, np.float32)


def words_of(future: Future[Hypothesis]) -> int:
    return sum(len(segment.text.split()) for segment in future.result(LONGEST_WAIT_S).segments)


def all_done(futures: list[Future[Hypothesis]]) -> bool:
    return not wait(futures, LONGEST_WAIT_S).not_done


def hold_workers(
    queue: DecodeQueue, hold: Hold, busy: int = WORKERS
) -> tuple[Ticket, list[Future[Hypothesis]]]:
    """So many workers stand still, over a window each."""
    ticket, held = queue.open(Priority.LIVE), []
    for _ in range(busy):
        held.append(ticket.submit(window(1), DecodeOptions(prompt=hold.prompt)))
        hold.wait_until_held()
    return ticket, held


def test_it_says_what_the_model_is(queue: DecodeQueue) -> None:
    assert queue.capabilities == FAKE_CAPABILITIES
    assert queue.model.id == FAKE_MODEL.id
    assert queue.usable
    ticket = queue.open()
    assert (ticket.capabilities, ticket.model, ticket.cancelled) == (queue.capabilities, queue.model, False)


def test_every_window_gets_its_own_answer(queue: DecodeQueue) -> None:
    ticket = queue.open()
    lengths = [1 + i % 30 for i in range(200)]
    assert [words_of(f) for f in [ticket.submit(window(n), PLAIN) for n in lengths]] == lengths


def test_thousands_of_small_windows_are_no_burden(queue: DecodeQueue) -> None:
    def client(number: int) -> list[int]:
        ticket = queue.open(tenant=str(number % 3))
        futures = [ticket.submit(window(1 + number), PLAIN) for _ in range(250)]
        answers = [words_of(future) for future in futures]
        ticket.close()
        return answers

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(client, range(8))) == [[1 + number] * 250 for number in range(8)]
    assert queue.open_tickets == 0


def test_options_reach_the_engine(queue: DecodeQueue) -> None:
    ticket = queue.open()
    asked = [DecodeOptions(language="de", words=True), DecodeOptions(temperature=0.4)]
    german, hot = (ticket.submit(window(2), options).result(LONGEST_WAIT_S) for options in asked)
    assert german.language is not None
    assert german.language.code == "de"
    assert len(german.segments[0].words) == 2
    assert hot.segments[0].temperature == 0.4


def test_closing_a_ticket_gives_up_all_it_has_and_nothing_of_others(
    queue: DecodeQueue, hold: Hold, observer: Observer
) -> None:
    holder, held = hold_workers(queue, hold)
    leaving, staying = queue.open(), queue.open()
    dropped = [leaving.submit(window(3), PLAIN) for _ in range(5)]
    kept = staying.submit(window(4), PLAIN)
    leaving.close()
    leaving.close()
    assert leaving.cancelled
    # Those being decoded too: nobody waits for an engine, not even one that is stuck.
    holder.close()
    for future in [*dropped, *held, leaving.submit(window(1), PLAIN)]:
        with pytest.raises(CancelledError):
            future.result(LONGEST_WAIT_S)
    assert (queue.open_tickets, sum(queue.waiting().values())) == (1, 1)
    queue.open().close()  # it has been heard, and so has everything before, wherever the model lives
    hold.release()
    assert words_of(kept) == 4
    observer.wait_for_rows(WORKERS + 1)
    assert observer.rows == WORKERS + 1


def test_a_window_given_up_by_its_caller_disturbs_nobody(queue: DecodeQueue, hold: Hold) -> None:
    hold_workers(queue, hold)
    ticket = queue.open()
    unwanted, wanted = (ticket.submit(window(n), PLAIN) for n in (2, 3))
    assert unwanted.cancel()
    hold.release()
    assert words_of(wanted) == 3
    assert unwanted.cancelled()


def test_how_much_waits_is_told_by_class(queue: DecodeQueue, hold: Hold) -> None:
    hold_workers(queue, hold)
    tickets = {priority: queue.open(priority) for priority in Priority}
    futures = [tickets[p].submit(window(1), PLAIN) for p in Priority for _ in range(1 + p)]
    assert queue.waiting() == {Priority.LIVE: 1, Priority.INTERACTIVE: 2, Priority.BULK: 3}
    assert queue.open_tickets == 4
    hold.release()
    assert all_done(futures)
    assert sum(queue.waiting().values()) == 0


def test_the_more_urgent_goes_first(
    queue: DecodeQueue, hold: Hold, observer: Observer, tmp_path: Path
) -> None:
    (tmp_path / "last").mkdir()
    with closing(Hold(tmp_path / "last")) as last:
        hold_workers(queue, hold, busy=WORKERS - 1)
        hold_workers(queue, last, busy=1)
        order = [Priority.BULK, Priority.INTERACTIVE, Priority.LIVE]
        futures = [queue.open(priority).submit(window(1), PLAIN) for priority in order]
        queue.open().close()  # it has been heard, and so has everything before
        last.release()  # one worker, so one after the other
        assert all_done(futures)
    assert observer.begun[WORKERS:] == sorted(order)


def test_what_waits_past_its_deadline_fails_and_is_not_decoded(
    queue: DecodeQueue, hold: Hold, observer: Observer
) -> None:
    hold_workers(queue, hold)
    hasty, patient = queue.open(deadline_s=0.3), queue.open(deadline_s=3600.0)
    late = [hasty.submit(window(n), PLAIN) for n in (1, 2, 3)]
    kept = patient.submit(window(4), PLAIN)
    for future in late:
        with pytest.raises(DeadlineExceeded):
            future.result(LONGEST_WAIT_S)
    with pytest.raises(DeadlineExceeded):
        hasty.submit(window(1), PLAIN).result(LONGEST_WAIT_S)
    hold.release()
    assert words_of(kept) == 4
    observer.wait_for_rows(WORKERS + 1)
    assert observer.rows == WORKERS + 1


def test_a_decode_past_its_deadline_is_thrown_away(queue: DecodeQueue, hold: Hold) -> None:
    ticket = queue.open(deadline_s=0.3)
    held = ticket.submit(window(1), DecodeOptions(prompt=hold.prompt))
    hold.wait_until_held()
    with pytest.raises(DeadlineExceeded):
        held.result(LONGEST_WAIT_S)
    hold.release()
    assert words_of(queue.open().submit(window(5), PLAIN)) == 5


def test_without_any_time_nothing_is_decoded(queue: DecodeQueue, observer: Observer) -> None:
    with pytest.raises(DeadlineExceeded):  # as it opens, or then
        queue.open(deadline_s=0.0).submit(window(1), PLAIN).result(LONGEST_WAIT_S)
    assert words_of(queue.open().submit(window(2), PLAIN)) == 2
    observer.wait_for_rows(1)
    assert observer.rows == 1


def test_no_more_requests_than_allowed(start: Callable[..., DecodeQueue]) -> None:
    queue = start(max_tickets=2)
    first, _ = queue.open(), queue.open()
    with pytest.raises(Overloaded) as refused:
        queue.open(Priority.LIVE)
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s >= 1.0
    first.close()
    queue.open().close()


def test_64_at_once_on_16_places(start: Callable[..., DecodeQueue], hold: Hold) -> None:
    queue = start(max_tickets=17)
    hold_workers(queue, hold)
    told: list[float] = []
    inside = threading.Barrier(17)

    def client(number: int) -> int | None:
        try:
            ticket = queue.open()
        except Overloaded as refused:
            told.append(refused.retry_after_s or 0.0)
            if len(told) == 48:
                hold.release()
            return None
        answer = words_of(ticket.submit(window(1 + number), PLAIN))
        inside.wait(LONGEST_WAIT_S)  # a place is kept until everybody has asked
        ticket.close()
        return answer

    with ThreadPoolExecutor(64) as pool:
        answers = [pool.submit(client, number) for number in range(64)]
        inside.wait(LONGEST_WAIT_S)
        found = [answer.result(LONGEST_WAIT_S) for answer in answers]
    assert [n for n in found if n is not None] == [1 + i for i, n in enumerate(found) if n is not None]
    assert (len(told), sum(n is not None for n in found)) == (48, 16)
    # Not all are told the same: they would all find one place.
    assert min(told) >= 1.0
    assert max(Counter(told).values()) <= 32
    assert max(told) > min(told)


def test_too_much_audio_in_front_keeps_new_requests_out_but_not_more_urgent_ones(
    start: Callable[..., DecodeQueue], hold: Hold
) -> None:
    queue = start(max_queued_s=5.0)
    hold_workers(queue, hold)
    ticket = queue.open(Priority.BULK)
    futures = [ticket.submit(window(4), PLAIN) for _ in range(3)]
    with pytest.raises(Overloaded):
        queue.open(Priority.BULK)
    futures.append(queue.open(Priority.INTERACTIVE).submit(window(4), PLAIN))
    futures += [ticket.submit(window(4), PLAIN) for _ in range(3)]  # nobody is refused half-way
    hold.release()
    assert all_done(futures)
    queue.open(Priority.BULK).close()


def test_a_window_that_fails_takes_no_other_with_it(queue: DecodeQueue) -> None:
    ticket, other = queue.open(), queue.open()
    bad = [ticket.submit(window(2), DecodeOptions(prompt=FAIL)) for _ in range(10)]
    good = [one.submit(window(3), PLAIN) for one in (ticket, other) for _ in range(10)]
    for future in bad:
        with pytest.raises(EngineFailed):
            future.result(LONGEST_WAIT_S)
    assert {words_of(future) for future in good} == {3}
    assert words_of(queue.open().submit(window(5), PLAIN)) == 5


def test_closing_lets_open_requests_finish_and_admits_no_new_ones(queue: DecodeQueue, hold: Hold) -> None:
    ticket, held = hold_workers(queue, hold)
    waiting = ticket.submit(window(4), PLAIN)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(queue.close, LONGEST_WAIT_S)
        while queue.usable:
            pass
        with pytest.raises(ShuttingDown):
            queue.open()
        later = ticket.submit(window(5), PLAIN)  # a request that is half-way is not cut off
        hold.release()
        assert [words_of(f) for f in (*held, waiting, later)] == [1] * WORKERS + [4, 5]
        ticket.close()
        closing.result(LONGEST_WAIT_S)
    queue.close()


def test_closing_without_grace_resolves_everything(queue: DecodeQueue, hold: Hold) -> None:
    ticket, held = hold_workers(queue, hold)
    waiting = [ticket.submit(window(4), PLAIN) for _ in range(5)]
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(queue.close, 0.0)
        for future in waiting:
            with pytest.raises(ShuttingDown):
                future.result(LONGEST_WAIT_S)
        hold.release()
        closing.result(LONGEST_WAIT_S)
    assert all_done(held)
    with pytest.raises(ShuttingDown):
        ticket.submit(window(1), PLAIN)
    with pytest.raises(ShuttingDown):
        queue.open()
