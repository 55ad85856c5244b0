"""The models in memory: loaded once, shared by every request, given back when idle."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from voiceforge.errors import ShuttingDown
from voiceforge.speech.engines.base import Engine
from voiceforge.speech.engines.batcher import Batcher
from voiceforge.speech.engines.tickets import BatcherLimits, Priority, Ticket
from voiceforge.telemetry.metrics import Metrics

_HANDOVER_S = 1.0  # longer than anything but a load holds the lock of a place

_log = structlog.get_logger(__name__)


class EngineLoader(Protocol):
    """Makes the engine of a model; slow, may raise any of our errors."""

    def __call__(self, model_id: str) -> Engine: ...


@dataclass(slots=True)
class _Place:
    """Where one model is or will be. Its lock is held while it loads, so that it loads once."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    batcher: Batcher | None = None
    used_at: float = 0.0


class EngineRoom:
    """Thread-safe. `open` blocks while its model loads; other models stay reachable meanwhile.

    Args:
        load: makes engines.
        idle_unload_s: unload what nobody used for so long; None: never.
        keep: tells which models are never unloaded for idleness.
    """

    def __init__(
        self,
        load: EngineLoader,
        *,
        limits: BatcherLimits,
        metrics: Metrics,
        idle_unload_s: float | None = None,
        keep: Callable[[], frozenset[str]] = frozenset,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._limits = limits
        self._metrics = metrics
        self._idle_unload_s = idle_unload_s
        self._keep = keep
        self._clock = clock
        self._lock = threading.Lock()
        self._places: dict[str, _Place] = {}
        self._closed = False

    def open(
        self, model_id: str, priority: Priority = Priority.INTERACTIVE, tenant: str = "default"
    ) -> Ticket:
        """A place in the queue of a model, loading it first if need be. The model stays while it is held.

        Raises:
            Overloaded: the queue is full.
            ModelNotInstalled, DependencyMissing, EngineFailed: the model cannot be loaded.
            ShuttingDown: after `close`.
        """
        place = self._place(model_id)
        with place.lock:  # or the model might be unloaded before the ticket is open
            return self._ready(place, model_id).open(priority, tenant)

    def batcher(self, model_id: str) -> Batcher:
        """The batcher of a model, loading it first if need be; it may be unloaded any moment. Raises as
        `open` does."""
        place = self._place(model_id)
        with place.lock:
            return self._ready(place, model_id)

    def _place(self, model_id: str) -> _Place:
        with self._lock:
            return self._places.setdefault(model_id, _Place())

    def _ready(self, place: _Place, model_id: str) -> Batcher:
        """With the lock of the place held."""
        self._refuse_if_closed()
        if place.batcher is None:
            started = self._clock()
            engine = self._load(model_id)
            if self._closed:  # `close` did not wait for this
                engine.close()
                self._refuse_if_closed()
            place.batcher = Batcher(engine, limits=self._limits, observer=_Reports(self._metrics))
            seconds = self._clock() - started
            self._metrics.model_loaded(model_id, seconds=seconds)
            _log.info("model loaded", model=model_id, seconds=round(seconds, 3))
        place.used_at = self._clock()
        return place.batcher

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ShuttingDown("the server is shutting down", retry_after_s=5)

    def is_loaded(self, model_id: str) -> bool:
        place = self._places.get(model_id)
        return place is not None and place.batcher is not None

    def loaded(self) -> dict[str, Batcher]:
        with self._lock:
            return {m: p.batcher for m, p in self._places.items() if p.batcher is not None}

    def open_tickets(self) -> int:
        """Requests that hold a place in some queue."""
        return sum(batcher.open_tickets for batcher in self.loaded().values())

    def report_depths(self) -> None:
        """Bring the queue gauges up to date."""
        for model_id, batcher in self.loaded().items():
            for priority, depth in batcher.waiting().items():
                self._metrics.queue_depth(model=model_id, priority=priority.name.lower(), depth=depth)

    def sweep(self) -> list[str]:
        """Unload what has been idle too long; returns the models that went."""
        if self._idle_unload_s is None:
            return []
        return [model_id for model_id in self.loaded() if self._sweep(model_id, self._idle_unload_s)]

    def _sweep(self, model_id: str, idle_s: float) -> bool:
        place = self._place(model_id)
        with place.lock:
            if place.batcher is None or model_id in self._keep():
                return False
            if place.batcher.open_tickets:
                place.used_at = self._clock()
            if self._clock() - place.used_at <= idle_s:
                return False
            self._unload(place, model_id)
            return True

    def unload(self, model_id: str) -> None:
        """Let the open requests of a model finish, then give its memory back. Requests that come
        meanwhile wait, and load it again: there are never two copies."""
        place = self._place(model_id)
        with place.lock:
            if place.batcher is not None:
                self._unload(place, model_id)

    def _unload(self, place: _Place, model_id: str) -> None:
        batcher, place.batcher = place.batcher, None
        if batcher is not None:
            batcher.close()
            self._metrics.model_unloaded(model_id)
            _log.info("model unloaded", model=model_id)

    def close(self, grace_s: float) -> None:
        """Finish what is open within `grace_s`, then close every engine. One that is still loading
        then closes as soon as it is loaded."""
        deadline = self._clock() + grace_s
        with self._lock:
            self._closed = True
            places = list(self._places.values())
        for place in places:
            if place.lock.acquire(timeout=max(_HANDOVER_S, deadline - self._clock())):
                try:
                    if place.batcher is not None:
                        place.batcher.close(max(0.0, deadline - self._clock()))
                finally:
                    place.lock.release()


class _Reports:
    """Hands what batchers see to the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def batch_done(self, model: str, rows: int, audio_s: float, seconds: float) -> None:
        self._metrics.observe_batch(model=model, rows=rows)

    def window_waited(self, model: str, priority: Priority, seconds: float) -> None:
        self._metrics.observe_queue_wait(model=model, priority=priority.name.lower(), seconds=seconds)
