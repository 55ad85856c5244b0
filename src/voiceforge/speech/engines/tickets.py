"""What a request sees of a model: a ticket, and the queue that gave it one.

    queue.open() ─▶ Ticket ─ submit(window) ─▶ Future[Hypothesis]

The model itself may be in this process (`batcher`) or in a child of it; nobody on this side can tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from voiceforge.speech.audio.waveform import Waveform
from voiceforge.speech.engines.base import Capabilities, DecodeOptions, Hypothesis
from voiceforge.speech.transcript.types import ModelRef


class Priority(IntEnum):
    """Lower comes first: someone is listening, someone is waiting, nobody is."""

    LIVE = 0
    INTERACTIVE = 1
    BULK = 2


@dataclass(frozen=True, slots=True)
class BatcherLimits:
    """max_tickets: requests at once. max_queued_s: seconds of audio waiting in front of a new request, by
    its class, before it is refused; those already inside are never refused half-way. batch_wait_s: the
    longest a window is held back for others to share its batch; 0: never."""

    max_tickets: int = 256
    max_queued_s: float = 3600.0
    batch_wait_s: float = 0.005


class BatchObserver(Protocol):
    """What a queue reports to whoever keeps the metrics. Called from its threads."""

    def batch_done(self, model: str, rows: int, audio_s: float, seconds: float) -> None: ...

    def window_waited(self, model: str, priority: Priority, seconds: float) -> None: ...


class Ticket(Protocol):
    """One request's place in the queue. Close it when the request ends, however it ends."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def model(self) -> ModelRef: ...

    @property
    def cancelled(self) -> bool:
        """Whether it has been closed."""
        ...

    def submit(self, window: Waveform, options: DecodeOptions) -> Future[Hypothesis]:
        """Queue one window, float32, shape (n_samples,), 16 kHz mono; it must not change afterwards.

        The future raises EngineFailed where the engine did, EngineCrashed where its process ended twice
        over this window, DeadlineExceeded past the deadline, and CancelledError after `close`.
        """
        ...

    def close(self) -> None:
        """Give up what has not been decoded yet. Idempotent."""
        ...


class DecodeQueue(Protocol):
    """The queue in front of one loaded model. Thread-safe."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def model(self) -> ModelRef: ...

    @property
    def usable(self) -> bool:
        """False once it is closing or broken for good: the model must be loaded anew."""
        ...

    @property
    def open_tickets(self) -> int: ...

    def waiting(self) -> Mapping[Priority, int]:
        """How many windows wait, by class."""
        ...

    def open(
        self,
        priority: Priority = Priority.INTERACTIVE,
        tenant: str = "default",
        *,
        deadline_s: float | None = None,
    ) -> Ticket:
        """Admit one request.

        Args:
            tenant: whose share of the model this takes.
            deadline_s: from now; what is not decoded by then fails.

        Raises:
            Overloaded: too many requests or too much audio waiting; `retry_after_s` follows from the
                speed measured so far.
            ShuttingDown: after `close`.
        """
        ...

    def close(self, grace_s: float = 30.0) -> None:
        """Admit nobody any more, let the open requests finish within `grace_s`, drop the rest, then give
        the memory of the model back. Idempotent."""
        ...
