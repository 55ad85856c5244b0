"""The models in memory: loaded once, shared by every request, given back when idle."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from voiceforge.errors import ShuttingDown
from voiceforge.infra.enginehost.base import EngineHosts
from voiceforge.speech.engines.device import RunsOn
from voiceforge.speech.engines.tickets import DecodeQueue, Priority, Ticket
from voiceforge.telemetry.logger import Logger
from voiceforge.telemetry.metrics import Metrics

_HANDOVER_S = 1.0  # longer than anything but a load holds the lock of a place

_log = Logger(__name__)


@dataclass(slots=True)
class _Place:
    """Where one model is or will be. Its lock is held while it loads, so that it loads once."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    queue: DecodeQueue | None = None
    used_at: float = 0.0
    memory_bytes: int | None = None


class EngineRoom:
    """Thread-safe. `open` blocks while its model loads; other models stay reachable meanwhile.

    Args:
        hosts: bring models into memory; closed with this.
        idle_unload_s: unload what nobody used for so long; None: never.
        memory_budget_bytes: what all models together may take, resident; those that nobody uses go, the
            one unused for longest first, to make room for another. None: no limit.
        keep: tells which models are never unloaded for either.
    """

    def __init__(
        self,
        hosts: EngineHosts,
        *,
        metrics: Metrics,
        idle_unload_s: float | None = None,
        memory_budget_bytes: int | None = None,
        keep: Callable[[], frozenset[str]] = frozenset,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hosts = hosts
        self._metrics = metrics
        self._reports = _Reports(metrics)
        self._idle_unload_s = idle_unload_s
        self._memory_budget_bytes = memory_budget_bytes
        self._keep = keep
        self._clock = clock
        self._lock = threading.Lock()
        self._places: dict[str, _Place] = {}
        self._closed = False

    def open(
        self,
        model_id: str,
        priority: Priority = Priority.INTERACTIVE,
        tenant: str = "default",
        *,
        deadline_s: float | None = None,
    ) -> Ticket:
        """A place in the queue of a model, loading it first if need be. The model stays while it is held.

        Raises:
            Overloaded: the queue is full.
            ModelNotInstalled, DependencyMissing, EngineFailed, EngineCrashed: the model cannot be loaded.
            ShuttingDown: after `close`.
        """
        place = self._place(model_id)
        with place.lock:  # or the model might be unloaded before the ticket is open
            return self._ready(place, model_id).open(priority, tenant, deadline_s=deadline_s)

    def queue(self, model_id: str) -> DecodeQueue:
        """The queue of a model, loading it first if need be; it may be unloaded any moment. Raises as
        `open` does."""
        place = self._place(model_id)
        with place.lock:
            return self._ready(place, model_id)

    def renew(self, model_id: str) -> None:
        """Load a model anew, from the files that are there now. Where it lives in a process of its own no
        request notices; elsewhere those that come meanwhile wait. Raises as `open` does."""
        place = self._place(model_id)
        with place.lock:
            if place.queue is None or not self._hosts.renew(model_id):
                self._unload(place, model_id)
                self._ready(place, model_id)
        _log.info("model renewed", model=model_id)

    def _place(self, model_id: str) -> _Place:
        with self._lock:
            return self._places.setdefault(model_id, _Place())

    def _ready(self, place: _Place, model_id: str) -> DecodeQueue:
        """With the lock of the place held."""
        self._refuse_if_closed()
        if place.queue is not None and not place.queue.usable:
            self._unload(place, model_id)
        if place.queue is None:
            self._make_room(model_id, place.memory_bytes or 0)
            started = self._clock()
            queue = self._hosts.start(model_id, self._reports)
            if self._closed:  # `close` did not wait for this
                queue.close()
                self._refuse_if_closed()
            place.queue = queue
            place.memory_bytes = self._hosts.memory_bytes(model_id)
            seconds = self._clock() - started
            self._metrics.model_loaded(model_id, seconds=seconds)
            _log.info("model loaded", model=model_id, seconds=round(seconds, 3))
            runs_on = self._hosts.runs_on(model_id)
            for note in runs_on.notes if runs_on is not None else ():
                _log.warning(note, model=model_id)
            self._make_room(model_id, 0)
        place.used_at = self._clock()
        return place.queue

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ShuttingDown("the server is shutting down", retry_after_s=5)

    def is_loaded(self, model_id: str) -> bool:
        queue = self.loaded().get(model_id)
        return queue is not None and queue.usable

    def loaded(self) -> dict[str, DecodeQueue]:
        with self._lock:
            return {m: p.queue for m, p in self._places.items() if p.queue is not None}

    def memory_bytes(self) -> dict[str, int]:
        """What each loaded model takes, resident, where that can be told."""
        taken = {model_id: self._hosts.memory_bytes(model_id) for model_id in self.loaded()}
        return {model_id: size for model_id, size in taken.items() if size is not None}

    def runs_on(self) -> dict[str, RunsOn]:
        """What each loaded model runs on, where that is known."""
        found = {model_id: self._hosts.runs_on(model_id) for model_id in self.loaded()}
        return {model_id: runs_on for model_id, runs_on in found.items() if runs_on is not None}

    def open_tickets(self) -> int:
        """Requests that hold a place in some queue."""
        return sum(queue.open_tickets for queue in self.loaded().values())

    def report_depths(self) -> None:
        """Bring the gauges up to date."""
        for model_id, queue in self.loaded().items():
            for priority, depth in queue.waiting().items():
                self._metrics.queue_depth(model=model_id, priority=priority.name.lower(), depth=depth)
        for model_id, size in self.memory_bytes().items():
            self._metrics.model_memory(model_id, size)

    def sweep(self) -> list[str]:
        """Unload what has been idle too long, and what makes all of them too large; returns the models
        that went."""
        gone = self._make_room(None, 0)
        if self._idle_unload_s is None:
            return gone
        return gone + [model_id for model_id in self.loaded() if self._sweep(model_id, self._idle_unload_s)]

    def _sweep(self, model_id: str, idle_s: float) -> bool:
        place = self._place(model_id)
        with place.lock:
            if not self._is_spare(place, model_id):
                return False
            if self._clock() - place.used_at <= idle_s:
                return False
            self._unload(place, model_id)
            return True

    def _is_spare(self, place: _Place, model_id: str) -> bool:
        """Whether nobody uses a model that need not be kept. With the lock of the place held."""
        if place.queue is None or model_id in self._keep():
            return False
        if place.queue.open_tickets:
            place.used_at = self._clock()
            return False
        return True

    def _make_room(self, coming: str | None, coming_bytes: int) -> list[str]:
        """Unload spare models until all, and the one that is coming, fit into the budget."""
        if self._memory_budget_bytes is None:
            return []
        taken = self.memory_bytes()
        over = sum(taken.values()) + coming_bytes - self._memory_budget_bytes
        gone = []
        for model_id in sorted(taken, key=lambda one: self._place(one).used_at):
            place = self._place(model_id)
            # One whose lock is taken is loading, leaving or being opened: not spare.
            if over <= 0 or model_id == coming or not place.lock.acquire(blocking=False):
                continue
            try:
                if self._is_spare(place, model_id):
                    self._unload(place, model_id)
                    over -= taken[model_id]
                    gone.append(model_id)
            finally:
                place.lock.release()
        if over > 0:
            _log.warning("models take more memory than their budget", over_bytes=over)
        return gone

    def unload(self, model_id: str) -> None:
        """Let the open requests of a model finish, then give its memory back. Requests that come
        meanwhile wait, and load it again: there are never two copies."""
        place = self._place(model_id)
        with place.lock:
            self._unload(place, model_id)

    def _unload(self, place: _Place, model_id: str) -> None:
        if place.queue is not None and place.queue.usable:
            place.memory_bytes = self._hosts.memory_bytes(model_id)
        queue, place.queue = place.queue, None
        if queue is not None:
            queue.close()
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
                    if place.queue is not None:
                        place.queue.close(max(0.0, deadline - self._clock()))
                finally:
                    place.lock.release()
        self._hosts.close()


class _Reports:
    """Hands what batchers see to the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def batch_done(self, model: str, rows: int, audio_s: float, seconds: float) -> None:
        self._metrics.observe_batch(model=model, rows=rows)

    def window_waited(self, model: str, priority: Priority, seconds: float) -> None:
        self._metrics.observe_queue_wait(model=model, priority=priority.name.lower(), seconds=seconds)
