"""One resident model, many callers: windows of all requests go through here to reach the engine.

    open() ─▶ Ticket ─ submit(window) ─▶ waiting, by class and arrival ─▶ a worker takes the most
    urgent and others that fit beside it ─▶ engine.decode ─▶ the window's Future

Threads only; nothing here blocks an event loop, and nobody else calls the engine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from voiceforge.errors import EngineFailed, Overloaded, ShuttingDown, VoiceForgeError
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import Capabilities, DecodeOptions, Engine, Hypothesis
from voiceforge.speech.engines.tickets import BatcherLimits, BatchObserver, Priority
from voiceforge.speech.transcript.types import ModelRef

_SPEED_SMOOTHING = 0.2  # weight of the newest batch in the running speed
_PATIENCE_S = 10.0
_PATIENT_TURN = 8
"""Every eighth batch goes to the window that has waited longest, if that is more than ten seconds: no
class starves, and a backlog of any age takes no more than that from the more urgent ones."""


@dataclass(eq=False, slots=True)
class _Item:
    window: Waveform
    options: DecodeOptions
    ticket: BatcherTicket
    order: int
    queued_at: float
    future: Future[Hypothesis] = field(default_factory=Future)

    @property
    def seconds(self) -> float:
        return len(self.window) / SAMPLE_RATE_HZ

    @property
    def rank(self) -> tuple[int, int]:
        return (self.ticket.priority, self.order)


class BatcherTicket:
    """See `Ticket`."""

    def __init__(self, batcher: Batcher, priority: Priority, tenant: str) -> None:
        self._batcher = batcher
        self.priority = priority
        self.tenant = tenant
        self.cancelled = False

    @property
    def capabilities(self) -> Capabilities:
        return self._batcher.capabilities

    @property
    def model(self) -> ModelRef:
        return self._batcher.model

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
        self._engine = engine
        self._limits = limits or BatcherLimits()
        self._observer = observer
        self._clock = clock
        self._lock = threading.Condition()
        self._waiting: list[_Item] = []
        self._tickets: set[BatcherTicket] = set()
        self._order = 0
        self._idle = 0
        self._turn = 0
        self._closing = False
        self._stopped = False
        self._seconds_per_second: float | None = None
        self._workers = [
            threading.Thread(target=self._work, name=f"engine-{engine.model.id}-{i}", daemon=True)
            for i in range(engine.capabilities.parallel_decodes)
        ]
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
            return {p: sum(1 for item in self._waiting if item.ticket.priority is p) for p in Priority}

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
                raise ShuttingDown("the server is shutting down", retry_after_s=5)
            queued_s = sum(item.seconds for item in self._waiting)
            if len(self._tickets) >= self._limits.max_tickets or queued_s > self._limits.max_queued_s:
                raise Overloaded(
                    f"the queue of model {self.model.id} is full", retry_after_s=self._drain_time(queued_s)
                )
            ticket = BatcherTicket(self, priority, tenant)
            self._tickets.add(ticket)
            return ticket

    def close(self, grace_s: float = 30.0) -> None:
        """See `DecodeQueue.close`."""
        deadline = self._clock() + grace_s
        with self._lock:
            self._closing = True
            self._lock.wait_for(lambda: self._stopped or not self._tickets, grace_s)
            self._stopped = True
            self._lock.notify_all()
        for worker in self._workers:
            worker.join(max(0.0, deadline - self._clock()))
        with self._lock:
            dropped, self._waiting = self._waiting, []
        for item in dropped:
            if item.future.set_running_or_notify_cancel():
                item.future.set_exception(ShuttingDown("the server is shutting down", retry_after_s=5))
        for worker in self._workers:
            worker.join()  # at most one batch each
        self._engine.close()

    def _drain_time(self, queued_s: float) -> float:
        """Seconds until half of what waits is done, by the measured speed; 1 where nothing is known."""
        per_second = self._seconds_per_second
        return max(1.0, queued_s / per_second / 2) if per_second else 1.0

    def _submit(self, ticket: BatcherTicket, window: Waveform, options: DecodeOptions) -> Future[Hypothesis]:
        with self._lock:
            item = _Item(window, options, ticket, self._order, self._clock())
            if ticket.cancelled:
                _cancel(item.future)
                return item.future
            if self._stopped:
                raise ShuttingDown("the server is shutting down", retry_after_s=5)
            self._order += 1
            self._waiting.append(item)
            self._lock.notify_all()
            return item.future

    def _close_ticket(self, ticket: BatcherTicket) -> None:
        with self._lock:
            ticket.cancelled = True
            self._tickets.discard(ticket)
            self._lock.notify_all()
            mine = [item for item in self._waiting if item.ticket is ticket]
            self._waiting = [item for item in self._waiting if item.ticket is not ticket]
        for item in mine:
            _cancel(item.future)

    def _work(self) -> None:
        while batch := self._next_batch():
            started = self._clock()
            self._decode(batch)
            seconds = max(self._clock() - started, 1e-9)
            audio_s = sum(item.seconds for item in batch)
            self._note_speed(audio_s / seconds * len(self._workers))
            if self._observer is not None:
                self._observer.batch_done(self.model.id, len(batch), audio_s, seconds)

    def _next_batch(self) -> list[_Item]:
        """Wait for work; an empty list means the end."""
        with self._lock:
            self._idle += 1
            while not self._waiting and not self._stopped:
                self._lock.wait()
            batch = self._take() if self._waiting else []
            self._idle -= 1
        if self._observer is not None:
            now = self._clock()
            for item in batch:
                self._observer.window_waited(self.model.id, item.ticket.priority, now - item.queued_at)
        return batch

    def _take(self) -> list[_Item]:
        """The most urgent window, and beside it those of its class with equal options that are
        nearest to it in length: the decoder's work grows with the longest row."""
        first = self._first()
        same = [
            item
            for item in self._waiting
            if item.options == first.options and item.ticket.priority is first.ticket.priority
        ]
        # Leave something for the workers that are idle beside this one.
        fair_share = -(-len(same) // max(1, self._idle))
        rows = min(self._engine.capabilities.max_batch_rows, fair_share)
        same.sort(key=lambda item: (item is not first, abs(len(item.window) - len(first.window)), item.order))
        batch = same[:rows]
        chosen = set(map(id, batch))
        self._waiting = [item for item in self._waiting if id(item) not in chosen]
        return batch

    def _first(self) -> _Item:
        self._turn += 1
        longest = self._waiting[0]  # they stand in order of arrival
        if self._turn % _PATIENT_TURN == 0 and self._clock() - longest.queued_at > _PATIENCE_S:
            return longest
        return min(self._waiting, key=lambda item: item.rank)

    def _decode(self, batch: Sequence[_Item]) -> None:
        running = [item for item in batch if item.future.set_running_or_notify_cancel()]
        if running:
            self._decode_running(running)

    def _decode_running(self, running: Sequence[_Item]) -> None:
        try:
            hypotheses = self._engine.decode([item.window for item in running], running[0].options)
            if len(hypotheses) != len(running):
                raise EngineFailed("the speech engine did not answer for every window")
        except Exception as error:
            # Whatever escapes an engine must reach the callers: a worker that died would leave
            # them waiting for ever. One bad window must not fail those that shared its batch.
            if len(running) > 1:
                for item in running:
                    self._decode_running([item])
                return
            failure = (
                error if isinstance(error, VoiceForgeError) else EngineFailed("the speech engine failed")
            )
            failure.__cause__ = None if failure is error else error
            running[0].future.set_exception(failure)
        else:
            for item, hypothesis in zip(running, hypotheses, strict=True):
                item.future.set_result(hypothesis)

    def _note_speed(self, now: float) -> None:
        before = self._seconds_per_second
        self._seconds_per_second = now if before is None else before + _SPEED_SMOOTHING * (now - before)


def _cancel(future: Future[Hypothesis]) -> None:
    """For good: `cancel` alone leaves those hanging that wait by `concurrent.futures.wait`."""
    if future.cancel():
        future.set_running_or_notify_cancel()
