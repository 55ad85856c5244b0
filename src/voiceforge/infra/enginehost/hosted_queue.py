"""A `DecodeQueue` whose model lives in another process, and outlives that process.

When the host ends, another is asked for, the open tickets are opened there again, and what had not been
answered is sent again: nobody on this side notices but by the time it takes. Windows that the engine had
begun with are suspects: each gets one more try, one suspect at a time, so that the one that kills hosts
takes nobody with it, and then fails with EngineCrashed. A host that ends before it is up says nothing
against any window: several are tried.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from voiceforge.errors import DeadlineExceeded, EngineCrashed, ShuttingDown, VoiceForgeError
from voiceforge.infra.enginehost.channel import Channel, ChannelClosed
from voiceforge.infra.enginehost.messages import (
    BatchDone,
    Bye,
    CloseTicket,
    Done,
    Failed,
    GiveUp,
    Hello,
    LoadFailed,
    Open,
    Opened,
    Refused,
    Started,
    Submit,
    Waited,
)
from voiceforge.speech.audio.waveform import Waveform
from voiceforge.speech.engines.base import Capabilities, DecodeOptions, Hypothesis
from voiceforge.speech.engines.device import RunsOn
from voiceforge.speech.engines.tickets import BatchObserver, Priority
from voiceforge.speech.transcript.types import ModelRef

_TRIES_BEFORE_SUSPICION_ENDS = 2
_FIRST_DELAYS_S = (0.0, 0.1)
"""Before each try to reach the first host. A model that ends each of them shall not keep a request long."""
_NEXT_DELAYS_S = (0.0, 0.1, 0.5, 1.0, 2.0)
"""Before each try to reach another one: this model has been seen running here."""
_RETRY_AFTER_S = 2.0
_ADMISSION_S = 60.0
"""Longer than any host takes to come back; only a queue that is broken in a way we do not know takes it."""


@dataclass(eq=False, slots=True)
class _Window:
    item: int
    ticket: HostedTicket
    samples: Waveform
    options: DecodeOptions
    future: Future[Hypothesis] = field(default_factory=Future)
    running: bool = False
    crashes: int = 0


class HostedTicket:
    """See `Ticket`."""

    def __init__(
        self, queue: HostedQueue, number: int, priority: Priority, tenant: str, deadline: float | None
    ) -> None:
        self._queue = queue
        self.number = number
        self.priority = priority
        self.tenant = tenant
        self.deadline = deadline
        self.cancelled = False
        self.admitted = False
        self.refusal: VoiceForgeError | None = None

    @property
    def capabilities(self) -> Capabilities:
        return self._queue.capabilities

    @property
    def model(self) -> ModelRef:
        return self._queue.model

    def submit(self, window: Waveform, options: DecodeOptions) -> Future[Hypothesis]:
        """See `Ticket.submit`."""
        return self._queue._submit(self, window, options)

    def close(self) -> None:
        """See `Ticket.close`."""
        self._queue._close_ticket(self)


class HostedQueue:
    """See `DecodeQueue`.

    Args:
        connect: a new connection to the host of the model, starting one if need be; blocks.
        on_close: called once this is closed: nobody here needs the host any more.

    Raises:
        VoiceForgeError: what `connect` raises; the model cannot be loaded.
    """

    def __init__(
        self, connect: Callable[[], Channel], *, observer: BatchObserver, on_close: Callable[[], None]
    ) -> None:
        self._connect = connect
        self._observer = observer
        self._on_close = on_close
        self._lock = threading.Condition()
        self._tickets: dict[int, HostedTicket] = {}
        self._windows: dict[int, _Window] = {}
        self._suspects: deque[_Window] = deque()
        self._on_trial: _Window | None = None
        self._numbers = count(1)
        self._closing = False
        self._closed = False
        self._failure: VoiceForgeError | None = None
        self._leaving = False
        self._channel: Channel | None
        self._channel, self._hello = self._reach(_FIRST_DELAYS_S)
        self._reader = threading.Thread(target=self._read, name=f"hosted-{self._hello.model.id}", daemon=True)
        self._reader.start()

    @property
    def capabilities(self) -> Capabilities:
        return self._hello.capabilities

    @property
    def model(self) -> ModelRef:
        return self._hello.model

    @property
    def runs_on(self) -> RunsOn:
        return self._hello.runs_on

    @property
    def usable(self) -> bool:
        """See `DecodeQueue.usable`."""
        return not self._closing and self._failure is None

    @property
    def open_tickets(self) -> int:
        return len(self._tickets)

    def waiting(self) -> dict[Priority, int]:
        with self._lock:
            found = Counter(w.ticket.priority for w in self._windows.values() if not w.running)
        return {priority: found[priority] for priority in Priority}

    def open(
        self,
        priority: Priority = Priority.INTERACTIVE,
        tenant: str = "default",
        *,
        deadline_s: float | None = None,
    ) -> HostedTicket:
        """See `DecodeQueue.open`."""
        deadline = None if deadline_s is None else time.monotonic() + deadline_s
        with self._lock:
            self._refuse_if_over()
            ticket = HostedTicket(self, next(self._numbers), priority, tenant, deadline)
            self._tickets[ticket.number] = ticket
            self._send(_opening(ticket))
            self._lock.wait_for(
                lambda: ticket.admitted or ticket.refusal or self._failure or self._closed,
                _ADMISSION_S if deadline_s is None else min(deadline_s, _ADMISSION_S),
            )
            if ticket.admitted:
                return ticket
            self._tickets.pop(ticket.number, None)
            self._send(CloseTicket(ticket.number))
            self._lock.notify_all()
            if ticket.refusal is not None:
                raise ticket.refusal
            self._refuse_if_over()
            raise DeadlineExceeded(f"model {self.model.id} did not take the request in time")

    def close(self, grace_s: float = 30.0) -> None:
        """See `DecodeQueue.close`."""
        with self._lock:
            self._closing = True
            self._lock.wait_for(lambda: not self._tickets or self._failure or self._closed, grace_s)
            if self._closed:
                return
            self._closed = True
            left, self._windows = list(self._windows.values()), {}
            channel, self._channel = self._channel, None
            self._lock.notify_all()
        if channel is not None:
            channel.close()
        for window in left:
            _fail(window.future, ShuttingDown("the server is shutting down", retry_after_s=5))
        if threading.current_thread() is not self._reader:
            self._reader.join()
        self._on_close()

    def _refuse_if_over(self) -> None:
        if self._closing:
            raise ShuttingDown("the server is shutting down", retry_after_s=5)
        if self._failure is not None:
            raise self._failure

    # -- what tickets do

    def _submit(self, ticket: HostedTicket, samples: Waveform, options: DecodeOptions) -> Future[Hypothesis]:
        with self._lock:
            if ticket.cancelled:
                future: Future[Hypothesis] = Future()
                _cancel(future)
                return future
            if ticket.refusal is not None:
                raise ticket.refusal
            if self._closed:
                raise ShuttingDown("the server is shutting down", retry_after_s=5)
            if self._failure is not None:
                raise self._failure
            window = _Window(next(self._numbers), ticket, samples, options)
            self._windows[window.item] = window
            self._send(Submit(window.item, ticket.number, options), samples)
        window.future.add_done_callback(partial(self._give_up_if_cancelled, window.item))
        return window.future

    def _give_up_if_cancelled(self, item: int, future: Future[Hypothesis]) -> None:
        """One that its owner cancelled, while the ticket stays open, takes nobody's time any more."""
        if future.cancelled():
            with self._lock:
                if self._windows.pop(item, None) is not None:
                    self._send(GiveUp(item))
                    self._try_next_suspect()

    def _close_ticket(self, ticket: HostedTicket) -> None:
        with self._lock:
            if ticket.cancelled:
                return
            ticket.cancelled = True
            if self._tickets.pop(ticket.number, None) is not None:
                self._send(CloseTicket(ticket.number))
            mine = [window for window in self._windows.values() if window.ticket is ticket]
            for window in mine:
                del self._windows[window.item]
            self._try_next_suspect()
            self._lock.notify_all()
        for window in mine:
            _cancel(window.future)

    def _send(self, message: object, samples: Waveform | None = None) -> None:
        """Without a connection nothing is said: all of it is said anew on the next one."""
        if self._channel is not None:
            self._channel.send(message, samples)

    # -- the thread that listens to the host

    def _read(self) -> None:
        channel: Channel | None = self._channel
        while channel is not None:
            for message, _ in channel.messages():
                self._handle(message)
            channel.close()
            channel = self._after_loss()

    def _after_loss(self) -> Channel | None:
        """The host is gone: another one, with everything that is open said to it. None: it is all over."""
        with self._lock:
            if self._closed:
                return None
            self._channel = None
            lost = self._count_crashes()
        for window in lost:
            _fail(
                window.future,
                EngineCrashed(
                    "the speech engine broke down over this recording, twice", retry_after_s=_RETRY_AFTER_S
                ),
            )
        try:
            channel, hello = self._reach(_NEXT_DELAYS_S)
        except VoiceForgeError as error:
            self._give_up(error)
            return None
        return self._resume(channel, hello)

    def _resume(self, channel: Channel, hello: Hello) -> Channel | None:
        with self._lock:
            if self._closed:
                channel.close()
                return None
            self._channel, self._hello = channel, hello
            self._say_all_anew()
            return channel

    def _reach(self, delays_s: Sequence[float]) -> tuple[Channel, Hello]:
        """
        Raises:
            VoiceForgeError: the model cannot be loaded any more, or its host ends again and again.
        """
        for delay_s in delays_s:
            with self._lock:
                if self._lock.wait_for(lambda: self._closed, delay_s):
                    raise ShuttingDown("the server is shutting down", retry_after_s=5)
            with suppress(ChannelClosed, EngineCrashed):  # also one that was killed while it loaded
                channel = self._connect()
                try:
                    greeting, _ = channel.receive()
                except ChannelClosed:
                    channel.close()
                    raise
                if isinstance(greeting, Hello):
                    return channel, greeting
                channel.close()
                if isinstance(greeting, LoadFailed):
                    raise greeting.error
        raise EngineCrashed(
            "the process of the speech engine ends as soon as it starts", retry_after_s=_RETRY_AFTER_S
        )

    def _count_crashes(self) -> list[_Window]:
        """The host is gone. Returns the windows that have had their chances."""
        lost = []
        for window in list(self._windows.values()):
            if window.running and not self._leaving:
                window.crashes += 1
            window.running = False
            if window.crashes >= _TRIES_BEFORE_SUSPICION_ENDS:
                lost.append(self._windows.pop(window.item))
        self._leaving = False
        return lost

    def _say_all_anew(self) -> None:
        for ticket in self._tickets.values():
            self._send(_opening(ticket))
        self._suspects = deque(w for w in self._windows.values() if w.crashes)
        self._on_trial = None
        for window in self._windows.values():
            if not window.crashes:
                self._send(Submit(window.item, window.ticket.number, window.options), window.samples)
        self._try_next_suspect()

    def _try_next_suspect(self) -> None:
        if self._on_trial is not None and self._on_trial.item in self._windows:
            return
        self._on_trial = None
        while self._suspects and self._on_trial is None:
            suspect = self._suspects.popleft()
            if suspect.item in self._windows:
                self._on_trial = suspect
                self._send(Submit(suspect.item, suspect.ticket.number, suspect.options), suspect.samples)

    def _give_up(self, error: VoiceForgeError) -> None:
        with self._lock:
            self._failure = error
            left, self._windows = list(self._windows.values()), {}
            self._lock.notify_all()
        for window in left:
            _fail(window.future, error)

    def _handle(self, message: object) -> None:
        match message:
            case Done():
                window = self._answered(message.item)
                if window is not None and window.future.set_running_or_notify_cancel():
                    window.future.set_result(message.hypothesis)
            case Failed():
                window = self._answered(message.item)
                if window is not None:
                    _fail(window.future, message.error)
            case Started():
                with self._lock:
                    for item in message.items:
                        if (begun := self._windows.get(item)) is not None:
                            begun.running = True
            case Opened():
                self._settle(message.ticket, None)
            case Refused():
                self._settle(message.ticket, message.error)
            case Waited():
                self._observer.window_waited(self.model.id, message.priority, message.seconds)
            case BatchDone():
                self._observer.batch_done(self.model.id, message.rows, message.audio_s, message.seconds)
            case Bye():
                self._leaving = True

    def _answered(self, item: int) -> _Window | None:
        with self._lock:
            window = self._windows.pop(item, None)
            self._try_next_suspect()
            return window

    def _settle(self, number: int, refusal: VoiceForgeError | None) -> None:
        with self._lock:
            ticket = self._tickets.get(number)
            if ticket is None:
                return
            ticket.refusal = refusal
            mine = []
            if refusal is None:
                ticket.admitted = True
            else:  # the second time it may be a request that had been admitted by a host that is gone
                mine = [window for window in self._windows.values() if window.ticket is ticket]
                for window in mine:
                    del self._windows[window.item]
            self._lock.notify_all()
        for window in mine:
            assert refusal is not None
            _fail(window.future, refusal)


def _opening(ticket: HostedTicket) -> Open:
    left = None if ticket.deadline is None else max(0.0, ticket.deadline - time.monotonic())
    return Open(ticket.number, ticket.priority, ticket.tenant, left)


def _fail(future: Future[Hypothesis], error: VoiceForgeError) -> None:
    if future.set_running_or_notify_cancel():
        future.set_exception(error)


def _cancel(future: Future[Hypothesis]) -> None:
    """For good: `cancel` alone leaves those hanging that wait by `concurrent.futures.wait`."""
    if future.cancel():
        future.set_running_or_notify_cancel()
