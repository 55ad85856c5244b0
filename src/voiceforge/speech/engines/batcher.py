"""One resident model, many callers: windows of all requests go through here to reach the engine.

    open() ─▶ Ticket ─ submit(window) ─▶ Schedule ─▶ a worker takes a batch ─▶ engine.decode ─▶ Futures

Threads and futures are here; who is admitted, whose turn it is and what is decoded together are decided
by `batch_admission`, `batch_schedule` and their like, which know neither. Nothing here blocks an event
loop, and nobody else calls the engine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from voiceforge.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineFailed,
    OutOfDeviceMemory,
    Overloaded,
    ShuttingDown,
    VoiceForgeError,
)
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import Capabilities, DecodeOptions, Engine, Hypothesis
from voiceforge.speech.engines.batch_admission import Admission
from voiceforge.speech.engines.batch_rows import RowLimit
from voiceforge.speech.engines.batch_schedule import Batch, Contender, NotYet, QueuedWindow, Schedule
from voiceforge.speech.engines.batch_wait import BatchWait
from voiceforge.speech.engines.tickets import BatcherLimits, BatchObserver, Priority
from voiceforge.speech.transcript.types import ModelRef

_SPEED_SMOOTHING = 0.2  # weight of the newest batch in the running speed
_LONGEST_SLEEP_S = 3600.0  # the system has a limit, and deadlines may be years ahead


@dataclass(eq=False, slots=True)
class _Item(QueuedWindow):
    """settled: whoever sets it, under the lock, is the one that resolves the future. Until then the future
    is pending, also while the window is decoded: callers may give it up any time."""

    ticket: BatcherTicket
    window: Waveform
    future: Future[Hypothesis] = field(default_factory=Future)
    settled: bool = False


@dataclass(frozen=True, slots=True)
class DecodeInProgress:
    """age_s: since it began. audio_s: seconds of audio it holds."""

    age_s: float
    audio_s: float
    rows: int


class BatcherTicket:
    """See `Ticket`."""

    def __init__(self, batcher: Batcher, contender: Contender, opened_at: float, due_at: float) -> None:
        self._batcher = batcher
        self._contender = contender
        self._opened_at = opened_at
        self._due_at = due_at
        self._unsettled: set[_Item] = set()
        self._cancelled = False

    @property
    def capabilities(self) -> Capabilities:
        return self._batcher.capabilities

    @property
    def model(self) -> ModelRef:
        return self._batcher.model

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def submit(self, window: Waveform, options: DecodeOptions) -> Future[Hypothesis]:
        """See `Ticket.submit`."""
        return self._batcher._submit(self, window, options)

    def close(self) -> None:
        """See `Ticket.close`."""
        self._batcher._close_ticket(self)


class Batcher:
    """A `DecodeQueue` in this process: owns the engine, its worker threads and the queue in front of them."""

    def __init__(
        self,
        engine: Engine,
        *,
        limits: BatcherLimits | None = None,
        observer: BatchObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = limits or BatcherLimits()
        capabilities = engine.capabilities
        self._engine = engine
        self._observer = observer
        self._clock = clock
        lock = threading.Lock()
        self._lock = lock
        self._work_came = threading.Condition(lock)
        self._ticket_closed = threading.Condition(lock)
        self._deadlines_changed = threading.Condition(lock)
        self._admission = Admission(limits)
        self._schedule: Schedule[_Item] = Schedule(capabilities.parallel_decodes)
        self._row_limit = RowLimit(capabilities.max_batch_rows)
        self._wait = BatchWait(limits.batch_wait_s)
        self._tickets: set[BatcherTicket] = set()
        self._timed: set[BatcherTicket] = set()
        self._running: dict[Batch[_Item], float] = {}
        self._order = 0
        self._idle = 0
        self._closing = False
        self._stopped = False
        self._audio_s_per_s: float | None = None
        self._workers = [
            threading.Thread(target=self._work, name=f"engine-{engine.model.id}-{i}", daemon=True)
            for i in range(capabilities.parallel_decodes)
        ]
        self._timekeeper: threading.Thread | None = None
        for worker in self._workers:
            worker.start()

    @property
    def capabilities(self) -> Capabilities:
        return self._engine.capabilities

    @property
    def model(self) -> ModelRef:
        return self._engine.model

    @property
    def usable(self) -> bool:
        """See `DecodeQueue.usable`."""
        return not self._closing

    @property
    def open_tickets(self) -> int:
        return len(self._tickets)

    def waiting(self) -> dict[Priority, int]:
        """How many windows wait, by class."""
        with self._lock:
            return {priority: self._schedule.waiting(priority) for priority in Priority}

    def longest_running(self) -> DecodeInProgress | None:
        """The decode in progress that began first; None while the engine is idle."""
        with self._lock:
            # They stand in the order in which they began.
            for batch, began in self._running.items():
                return DecodeInProgress(self._clock() - began, batch.seconds, len(batch.windows))
            return None

    def open(
        self,
        priority: Priority = Priority.INTERACTIVE,
        tenant: str = "default",
        *,
        deadline_s: float | None = None,
    ) -> BatcherTicket:
        """See `DecodeQueue.open`."""
        with self._lock:
            if self._closing:
                raise _shutting_down()
            now = self._clock()
            retry_after_s = self._admission.retry_after_s(
                now,
                opened_at=(ticket._opened_at for ticket in self._tickets),
                queued_s=self._schedule.seconds_before(priority),
                audio_s_per_s=self._total_speed(),
            )
            if retry_after_s is not None:
                raise Overloaded(f"the queue of model {self.model.id} is full", retry_after_s=retry_after_s)
            due_at = float("inf") if deadline_s is None else now + deadline_s
            ticket = BatcherTicket(self, Contender(priority, tenant), now, due_at)
            self._tickets.add(ticket)
            self._schedule.join(ticket._contender, now)
            if deadline_s is not None:
                self._keep_time_for(ticket)
            return ticket

    def close(self, grace_s: float = 30.0) -> None:
        """See `DecodeQueue.close`."""
        with self._lock:
            self._closing = True
            self._ticket_closed.wait_for(lambda: self._stopped or not self._tickets, grace_s)
            self._stopped = True
            self._work_came.notify_all()
            self._deadlines_changed.notify_all()
            now = self._clock()
            dropped = [item for ticket in self._tickets for item in ticket._contender.waiting.values()]
            for ticket in self._tickets:
                self._schedule.part(ticket._contender, now)
            dropped = _claim(dropped)
        _fail(dropped, _shutting_down)
        for thread in (*self._workers, self._timekeeper):
            if thread is not None:
                thread.join()  # a worker: at most one batch
        self._engine.close()

    def _total_speed(self) -> float | None:
        return self._audio_s_per_s * len(self._workers) if self._audio_s_per_s else None

    def _submit(self, ticket: BatcherTicket, window: Waveform, options: DecodeOptions) -> Future[Hypothesis]:
        with self._lock:
            now = self._clock()
            item = _Item(
                ticket._contender, options, len(window) / SAMPLE_RATE_HZ, self._order, now, ticket, window
            )
            if not ticket._cancelled and now < ticket._due_at:
                if self._stopped:
                    raise _shutting_down()
                self._order += 1
                ticket._unsettled.add(item)
                self._schedule.add(item, now)
                self._wait.arrived(ticket._contender, now)
                self._work_came.notify_all()
                return item.future
        if ticket._cancelled:
            _cancel([item])
        else:
            _fail([item], _too_late)
        return item.future

    def _close_ticket(self, ticket: BatcherTicket) -> None:
        with self._lock:
            if ticket._cancelled:
                return
            ticket._cancelled = True
            now = self._clock()
            self._tickets.discard(ticket)
            self._timed.discard(ticket)
            self._schedule.part(ticket._contender, now)
            self._admission.ended(now - ticket._opened_at, ticket._contender.taken_s)
            unsettled = _claim(ticket._unsettled)
            self._ticket_closed.notify_all()
        _cancel(unsettled)

    # Deadlines

    def _keep_time_for(self, ticket: BatcherTicket) -> None:
        """With the lock held."""
        self._timed.add(ticket)
        if self._timekeeper is None:
            name = f"deadlines-{self.model.id}"
            self._timekeeper = threading.Thread(target=self._keep_time, name=name, daemon=True)
            self._timekeeper.start()
        self._deadlines_changed.notify_all()

    def _keep_time(self) -> None:
        """Fails what is not done when it is due, whether workers are idle, busy or stuck."""
        while True:
            with self._lock:
                while not (overdue := self._overdue()):
                    if self._stopped:
                        return
                    next_s = min((ticket._due_at for ticket in self._timed), default=None)
                    left_s = None if next_s is None else min(next_s - self._clock(), _LONGEST_SLEEP_S)
                    self._deadlines_changed.wait(left_s)
                self._timed.difference_update(overdue)
                unsettled = _claim(item for ticket in overdue for item in ticket._unsettled)
            _fail(unsettled, _too_late)

    def _overdue(self) -> list[BatcherTicket]:
        """Take what waits past its deadline out of the schedule. With the lock held."""
        now = self._clock()
        overdue = [ticket for ticket in self._timed if ticket._due_at <= now]
        for ticket in overdue:
            self._schedule.part(ticket._contender, now)
        return overdue

    # Workers

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            began = self._clock()
            answered_s = self._decode(batch.windows)
            ended = self._clock()
            with self._lock:
                del self._running[batch]
                self._schedule.finish(batch, ended)
                self._note_speed(answered_s / max(ended - began, 1e-9))
                if self._idle and len(self._schedule):
                    self._work_came.notify_all()  # what was held back because of this one
            if self._observer is not None:
                self._observer.batch_done(self.model.id, len(batch.windows), batch.seconds, ended - began)

    def _next_batch(self) -> Batch[_Item] | None:
        """Wait for work; None means the end."""
        with self._lock:
            self._idle += 1
            while isinstance(found := self._choose(), NotYet):
                if self._stopped:
                    self._idle -= 1
                    return None
                look_s = found.look_again_at
                self._work_came.wait(None if look_s is None else look_s - self._clock())
            now = self._clock()
            self._idle -= 1
            self._schedule.start(found, now)
            self._running[found] = now
        if self._observer is not None:
            for item in found.windows:
                self._observer.window_waited(self.model.id, item.contender.priority, now - item.queued_at)
        return found

    def _choose(self) -> Batch[_Item] | NotYet:
        """With the lock held."""
        if self._overdue():
            self._deadlines_changed.notify_all()
        now = self._clock()
        rows = self._row_limit.rows(now)
        found = self._schedule.choose(
            now, idle_workers=self._idle, max_rows=rows, audio_s_per_s=self._audio_s_per_s
        )
        if (
            isinstance(found, Batch)
            and not found.heavy
            and len(found.windows) < rows
            and len(found.windows) == len(self._schedule)
            and self._idle == 1  # another would take what comes
            and len(self._tickets) > 1
        ):
            hold_until = self._wait.until(found.windows[0].queued_at, now)
            if hold_until is not None:
                return NotYet(hold_until)
        return found

    def _decode(self, windows: Sequence[_Item]) -> float:
        """Decode and resolve every one of them; returns the seconds of audio that the engine answered.

        Where it fails on several, each half is tried by itself: less memory is needed, and one bad window
        does not fail those that shared its batch.
        """
        answered_s = 0.0
        parts = [windows]
        while parts:
            items = self._wanted(parts.pop())
            if not items:
                continue
            failure: VoiceForgeError | None = None
            try:
                hypotheses = self._engine.decode(
                    [item.window for item in items],
                    items[0].options,
                    partial(_anybody_waits, items),
                )
                if len(hypotheses) != len(items):
                    raise EngineFailed("the speech engine did not answer for every window")
            except Cancelled:  # they are settled, unless another came to want them meanwhile
                parts.append(items)
                continue
            # Whatever escapes an engine must reach the callers, a panic of a native library too: a worker
            # that died would leave them waiting for ever.
            except BaseException as error:
                failure = _failure(error)
            if failure is None:
                answered_s += sum(item.seconds for item in items)
                self._answer(items, hypotheses)
            elif len(items) > 1:
                if isinstance(failure, OutOfDeviceMemory):
                    with self._lock:
                        self._row_limit.did_not_fit(len(items), self._clock())
                half = (len(items) + 1) // 2
                parts += [items[half:], items[:half]]
            else:
                self._refuse(items[0], failure)
        return answered_s

    def _wanted(self, windows: Iterable[_Item]) -> list[_Item]:
        """Those that somebody still waits for."""
        with self._lock:
            items = [item for item in windows if not item.settled]
            given_up = _claim(item for item in items if item.future.cancelled())
        _cancel(given_up)
        return [item for item in items if not item.settled]

    def _answer(self, items: Sequence[_Item], hypotheses: Sequence[Hypothesis]) -> None:
        with self._lock:
            mine = set(_claim(items))
        for item, hypothesis in zip(items, hypotheses, strict=True):
            if item in mine and item.future.set_running_or_notify_cancel():
                item.future.set_result(hypothesis)

    def _refuse(self, item: _Item, failure: VoiceForgeError) -> None:
        with self._lock:
            mine = _claim([item])
        _fail(mine, lambda: failure)

    def _note_speed(self, now: float) -> None:
        """With the lock held."""
        if now:
            before = self._audio_s_per_s
            self._audio_s_per_s = now if before is None else before + _SPEED_SMOOTHING * (now - before)


def _anybody_waits(items: Iterable[_Item]) -> bool:
    return any(not (item.settled or item.future.cancelled()) for item in items)


def _claim(items: Iterable[_Item]) -> list[_Item]:
    """Those that nobody has settled; they are the caller's to resolve. With the lock of the batcher held."""
    mine = [item for item in items if not item.settled]
    for item in mine:
        item.settled = True
        item.ticket._unsettled.discard(item)
    return mine


# Futures are resolved without the lock: what waits on them may call back.


def _cancel(items: Iterable[_Item]) -> None:
    for item in items:
        # `cancel` alone leaves those hanging that wait by `concurrent.futures.wait`.
        item.future.cancel()
        item.future.set_running_or_notify_cancel()


def _fail(items: Iterable[_Item], why: Callable[[], VoiceForgeError]) -> None:
    for item in items:
        if item.future.set_running_or_notify_cancel():
            item.future.set_exception(why())


def _failure(error: BaseException) -> VoiceForgeError:
    if isinstance(error, VoiceForgeError):
        return error
    failure = (
        OutOfDeviceMemory("the speech engine ran out of memory")
        if isinstance(error, MemoryError)
        else EngineFailed("the speech engine failed")
    )
    failure.__cause__ = error
    return failure


def _too_late() -> VoiceForgeError:
    return DeadlineExceeded("the recording was not recognised in the time it had")


def _shutting_down() -> VoiceForgeError:
    return ShuttingDown("the server is shutting down", retry_after_s=5)
