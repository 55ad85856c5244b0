"""The inside of an engine host: one engine behind one batcher, used over connections.

    connection ─ Open, Submit, CloseTicket ─▶ batcher ─▶ engine ─▶ Done, Failed ─▶ the same connection

A connection that ends closes its tickets: what was decoded for it is dropped.
"""

from __future__ import annotations

import socket
import threading
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial

from voiceforge.errors import EngineFailed, ShuttingDown, VoiceForgeError
from voiceforge.infra.enginehost.channel import Channel, Samples
from voiceforge.infra.enginehost.messages import (
    BatchDone,
    Bye,
    CloseTicket,
    Done,
    Failed,
    GiveUp,
    Hello,
    Open,
    Opened,
    Pulse,
    Refused,
    Retire,
    Started,
    Status,
    Submit,
    Waited,
)
from voiceforge.speech.audio.waveform import Waveform
from voiceforge.speech.engines.base import (
    Capabilities,
    DecodeOptions,
    Engine,
    Hypothesis,
    Wanted,
    always_wanted,
)
from voiceforge.speech.engines.batcher import Batcher
from voiceforge.speech.engines.device import RunsOn
from voiceforge.speech.engines.tickets import BatcherLimits, Priority, Ticket
from voiceforge.speech.transcript.types import ModelRef

_FAREWELL_S = 2.0
_SUSPICION_S = 0.1


class QueueServer:
    """Serves one engine until told to retire.

    Args:
        listener: a Unix socket that listens.
    """

    def __init__(
        self, engine: Engine, listener: socket.socket, *, limits: BatcherLimits, runs_on: RunsOn
    ) -> None:
        self._engine = _AnnouncingEngine(engine)
        self._reports = _Reports()
        self._batcher = Batcher(self._engine, limits=limits, observer=self._reports)
        self._listener = listener
        self._hello = Hello(engine.capabilities, engine.model, runs_on)
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._retiring = threading.Event()

    def serve(self) -> None:
        """Returns once it has retired and everybody has been told."""
        threading.Thread(target=self._accept, name="accept", daemon=True).start()
        self._retiring.wait()
        self._batcher.close(grace_s=0.0)
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.channel.send(Bye())
            connection.channel.finish(_FAREWELL_S)

    def _accept(self) -> None:
        while not self._retiring.is_set():
            peer, _ = self._listener.accept()
            threading.Thread(target=self._talk, args=(peer,), name="connection", daemon=True).start()

    def _talk(self, peer: socket.socket) -> None:
        channel = Channel(peer, "host")
        connection = _Connection(channel, self._batcher, self._engine, self._retiring)
        with self._lock:
            self._connections.add(connection)
        channel.send(self._hello)
        for message, samples in channel.messages():
            match message:
                case Pulse():
                    channel.send(self._status())
                case Retire():
                    self._retiring.set()
                case Open():
                    self._reports.reader = channel
                    connection.open(message)
                case Submit() if samples is not None:
                    connection.submit(message, samples)
                case GiveUp():
                    connection.give_up(message.item)
                case CloseTicket():
                    connection.close_ticket(message.ticket)
        with self._lock:
            self._connections.discard(connection)
        if not self._retiring.is_set():
            connection.close()

    def _status(self) -> Status:
        oldest = self._batcher.longest_running()
        return Status(
            self._batcher.waiting(),
            self._batcher.open_tickets,
            oldest.age_s if oldest is not None else None,
        )


class _Connection:
    """The tickets and windows of one of those who use the host."""

    def __init__(
        self, channel: Channel, batcher: Batcher, engine: _AnnouncingEngine, retiring: threading.Event
    ) -> None:
        self.channel = channel
        self._batcher = batcher
        self._engine = engine
        self._retiring = retiring
        self._tickets: dict[int, Ticket] = {}
        self._futures: dict[int, Future[Hypothesis]] = {}

    def open(self, wish: Open) -> None:
        try:
            ticket = self._batcher.open(wish.priority, wish.tenant, deadline_s=wish.deadline_s)
        except ShuttingDown:
            return  # it will ask the next host
        except VoiceForgeError as error:
            self.channel.send(Refused(wish.ticket, error))
            return
        self._tickets[wish.ticket] = ticket
        self.channel.send(Opened(wish.ticket))

    def submit(self, wish: Submit, samples: Samples) -> None:
        ticket = self._tickets.get(wish.ticket)
        if ticket is None:
            return  # closed meanwhile, or refused
        self._engine.expect(samples, self.channel, wish.item)
        try:
            future = ticket.submit(samples, wish.options)
        except VoiceForgeError:  # retiring
            self._engine.forget(samples)
            return
        self._futures[wish.item] = future
        future.add_done_callback(partial(self._answer, wish.item, samples))

    def give_up(self, item: int) -> None:
        future = self._futures.get(item)
        if future is not None:
            future.cancel()

    def close_ticket(self, number: int) -> None:
        ticket = self._tickets.pop(number, None)
        if ticket is not None:
            ticket.close()

    def close(self) -> None:
        for number in list(self._tickets):
            self.close_ticket(number)

    def _answer(self, item: int, samples: Samples, future: Future[Hypothesis]) -> None:
        self._engine.forget(samples)
        self._futures.pop(item, None)
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            self.channel.send(Done(item, future.result()))
        elif isinstance(error, ShuttingDown) and self._retiring.is_set():
            return  # not begun: it is for the next host
        else:
            known = error if isinstance(error, VoiceForgeError) else EngineFailed("the speech engine failed")
            self.channel.send(Failed(item, known))


class _AnnouncingEngine:
    """The engine, telling the owners of windows when it begins with them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._owners: dict[int, tuple[Channel, int]] = {}  # by the identity of the samples

    @property
    def model(self) -> ModelRef:
        return self._engine.model

    @property
    def capabilities(self) -> Capabilities:
        return self._engine.capabilities

    def expect(self, samples: Samples, channel: Channel, item: int) -> None:
        with self._lock:
            self._owners[id(samples)] = (channel, item)

    def forget(self, samples: Samples) -> None:
        with self._lock:
            self._owners.pop(id(samples), None)

    def decode(
        self, windows: Sequence[Waveform], options: DecodeOptions, wanted: Wanted = always_wanted
    ) -> list[Hypothesis]:
        begun: dict[Channel, list[int]] = defaultdict(list)
        with self._lock:
            for window in windows:
                owner = self._owners.get(id(window))
                if owner is not None:
                    begun[owner[0]].append(owner[1])
        for channel, items in begun.items():
            channel.send_now(Started(tuple(items)), _SUSPICION_S)  # it may be the last thing we say
        return self._engine.decode(windows, options, wanted)

    def close(self) -> None:
        self._engine.close()


class _Reports:
    """What the batcher sees, to whoever opened a ticket last: the sum over all of them is what counts."""

    reader: Channel | None = None

    def batch_done(self, model: str, rows: int, audio_s: float, seconds: float) -> None:
        if self.reader is not None:
            self.reader.send(BatchDone(rows, audio_s, seconds))

    def window_waited(self, model: str, priority: Priority, seconds: float) -> None:
        if self.reader is not None:
            self.reader.send(Waited(priority, seconds))
