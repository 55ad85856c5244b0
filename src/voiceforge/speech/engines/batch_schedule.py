"""Which windows are decoded next, and which of them together. Pure: no threads, no clock, no engine.

    add(window) ─▶ waiting, by class, tenant, request ─▶ choose ─▶ start ─▶ finish

Class before class; in a class the tenant that has had least audio decoded, of its requests the one that
has had least, of that one's windows the oldest. Beside it go others that may share a batch with it.

A request that has had minutes of audio decoded is *heavy*, as is all bulk work; the others are *light*.
While light ones come, heavy ones make short batches, and leave a worker free where there are several:
a batch cannot be interrupted, so a window waits for whatever began before it came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import islice
from typing import Any, Generic, TypeVar

from voiceforge.speech.engines.base import DecodeOptions
from voiceforge.speech.engines.batch_shares import FairShares
from voiceforge.speech.engines.tickets import Priority

HEAVY_AFTER_S = 120.0
"""Seconds of audio a request may have had decoded and still be light."""

LIGHT_WEIGHT = 0.25
"""What a second of audio counts for a light request, beside 1 for a heavy one of the same tenant."""

SHORT_BATCHES_S = 60.0
"""For so long after a light request was there, batches of heavy ones are short."""

HEAVY_BATCH_S = 0.2
"""How long such a batch takes at most, if it has more than one row."""

FREE_WORKER_S = 5.0
"""For so long after a light request was there, heavy ones leave a worker free, where there are several."""

PATIENCE_S = 10.0
PATIENT_TURN = 8
"""After seven batches the next one may be of the class of the window that has waited longest, if that is
more than ten seconds: no class starves, and a backlog takes no more than that from the more urgent ones."""

_LENGTH_RATIO = 3.0
_LENGTH_SLACK_S = 3.0
"""Rows of a batch differ no more than that in length, by one or the other: the decoder's work grows with
the longest row, and no row is done before the last."""

_MOST_LOOKED_AT = 1024
"""Windows among which a batch is put together; more would only take longer."""


@dataclass(eq=False, slots=True)
class Contender:
    """One request, as it competes for the engine."""

    priority: Priority
    tenant: str
    taken_s: float = 0.0
    seen_at: float = 0.0
    running: int = 0
    waiting: dict[int, Any] = field(default_factory=dict)

    @property
    def light(self) -> bool:
        if self.priority is Priority.INTERACTIVE:
            return self.taken_s < HEAVY_AFTER_S
        return self.priority is Priority.LIVE


@dataclass(eq=False, slots=True)
class QueuedWindow:
    """A window that waits. order: rises with every window of a schedule."""

    contender: Contender
    options: DecodeOptions
    seconds: float
    order: int
    queued_at: float


Window = TypeVar("Window", bound=QueuedWindow)


@dataclass(frozen=True, slots=True)
class Batch(Generic[Window]):
    """Windows to decode together; `windows[0]` is the one whose turn it is. patient: it is so because of how
    long its class has waited."""

    windows: tuple[Window, ...]
    heavy: bool
    patient: bool = False

    @property
    def seconds(self) -> float:
        return sum(window.seconds for window in self.windows)


@dataclass(frozen=True, slots=True)
class NotYet:
    """Nothing may start now. look_again_at: when that may change though nothing happens; None: never."""

    look_again_at: float | None = None


@dataclass(eq=False, slots=True)
class _Tenant(Generic[Window]):
    """The requests of one tenant in one class. ready: those with windows waiting, oldest first."""

    members: int = 0
    shares: FairShares[Contender] = field(default_factory=FairShares)
    ready: dict[Contender, None] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Class(Generic[Window]):
    """What waits in one class. windows: by order, so the oldest is the first."""

    windows: dict[int, Window] = field(default_factory=dict)
    seconds: float = 0.0
    shares: FairShares[str] = field(default_factory=FairShares)
    tenants: dict[str, _Tenant[Window]] = field(default_factory=dict)


class Schedule(Generic[Window]):
    """Not thread-safe. Every `now` is of one steady clock, in seconds.

    Args:
        workers: batches that may be decoded at the same time.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._classes: dict[Priority, _Class[Window]] = {priority: _Class() for priority in Priority}
        self._contenders: set[Contender] = set()
        self._since_patient = 0
        self._heavy_running = 0
        self._light_left_at = float("-inf")

    def waiting(self, priority: Priority) -> int:
        return len(self._classes[priority].windows)

    def __len__(self) -> int:
        """Windows that wait."""
        return sum(len(own.windows) for own in self._classes.values())

    def seconds_before(self, priority: Priority) -> float:
        """Audio waiting that goes before what would come now in this class."""
        return sum(own.seconds for other, own in self._classes.items() if other <= priority)

    def join(self, contender: Contender, now: float) -> None:
        contender.seen_at = now
        self._contenders.add(contender)
        own = self._classes[contender.priority]
        own.tenants.setdefault(contender.tenant, _Tenant()).members += 1

    def part(self, contender: Contender, now: float) -> None:
        """It leaves, and what it has waiting is no longer there. Idempotent."""
        if contender not in self._contenders:
            return
        self._contenders.remove(contender)
        if contender.light:
            self._light_left_at = now
        own = self._classes[contender.priority]
        for window in list(contender.waiting.values()):
            self._remove(window)
        tenant = own.tenants[contender.tenant]
        tenant.shares.forget(contender)
        if not len(tenant.shares):
            own.shares.leave(contender.tenant)
        tenant.members -= 1
        if not tenant.members:
            del own.tenants[contender.tenant]

    def add(self, window: Window, now: float) -> None:
        """Its contender has joined."""
        contender = window.contender
        contender.seen_at = now
        own = self._classes[contender.priority]
        tenant = own.tenants[contender.tenant]
        own.windows[window.order] = window
        own.seconds += window.seconds
        contender.waiting[window.order] = window
        tenant.ready.setdefault(contender)
        tenant.shares.enter(contender)
        own.shares.enter(contender.tenant)

    def choose(
        self, now: float, *, idle_workers: int, max_rows: int, audio_s_per_s: float | None
    ) -> Batch[Window] | NotYet:
        """What a worker that is free is to decode; nothing changes by asking.

        Args:
            idle_workers: workers that are free, the one that asks included.
            max_rows: windows that a batch may have.
            audio_s_per_s: how fast a worker decodes; None: not known yet.
        """
        light_at = self._light_at(now)
        free_until = light_at + FREE_WORKER_S
        held_back = now < free_until and 0 < self._workers - 1 <= self._heavy_running
        patient = self._patient(now, light_only=held_back)
        choice = patient or self._most_urgent(light_only=held_back)
        if choice is None:
            some = held_back and len(self) > 0
            return NotYet(free_until if some else None)
        own, first = choice
        heavy = not first.contender.light
        alike = [
            window
            for window in islice(own.windows.values(), _MOST_LOOKED_AT)
            if window is not first and _may_share(first, window)
        ]
        # Leave something for the workers that are idle beside this one.
        rows = min(max_rows, -(-(1 + len(alike)) // max(1, idle_workers)))
        beside = nsmallest(rows - 1, alike, key=lambda w: (abs(w.seconds - first.seconds), w.order))
        if heavy and now < light_at + SHORT_BATCHES_S:
            beside = _that_fit(beside, HEAVY_BATCH_S * (audio_s_per_s or 0.0) - first.seconds)
        return Batch((first, *beside), heavy, patient=patient is not None)

    def start(self, batch: Batch[Window], now: float) -> None:
        """These are being decoded."""
        self._since_patient = 0 if batch.patient else self._since_patient + 1
        self._heavy_running += batch.heavy
        own = self._classes[batch.windows[0].contender.priority]
        for window in batch.windows:
            contender = window.contender
            own.shares.charge(contender.tenant, window.seconds)
            weight = LIGHT_WEIGHT if contender.light else 1.0
            own.tenants[contender.tenant].shares.charge(contender, weight * window.seconds)
            self._remove(window)
        for window in batch.windows:
            window.contender.taken_s += window.seconds
            window.contender.running += 1
            window.contender.seen_at = now

    def finish(self, batch: Batch[Window], now: float) -> None:
        """They are no longer being decoded."""
        self._heavy_running -= batch.heavy
        for window in batch.windows:
            contender = window.contender
            contender.running -= 1
            contender.seen_at = now
            if not (contender.running or contender.waiting) and contender in self._contenders:
                own = self._classes[contender.priority]
                tenant = own.tenants[contender.tenant]
                tenant.shares.leave(contender)
                if not len(tenant.shares):
                    own.shares.leave(contender.tenant)

    def _remove(self, window: Window) -> None:
        contender = window.contender
        own = self._classes[contender.priority]
        tenant = own.tenants[contender.tenant]
        del own.windows[window.order]
        del contender.waiting[window.order]
        own.seconds = own.seconds - window.seconds if own.windows else 0.0  # or rounding adds up
        if not contender.waiting:
            del tenant.ready[contender]

    def _light_at(self, now: float) -> float:
        """When a light request was there last."""
        last = self._light_left_at
        for contender in self._contenders:
            if contender.light:
                if contender.running or contender.waiting:
                    return now
                last = max(last, contender.seen_at)
        return last

    def _patient(self, now: float, *, light_only: bool) -> tuple[_Class[Window], Window] | None:
        """In its turn, the class of the window that has waited longest, if that is too long."""
        if self._since_patient + 1 < PATIENT_TURN:
            return None
        oldest = min(
            (own for own in self._classes.values() if own.windows),
            key=lambda own: next(iter(own.windows)),
            default=None,
        )
        if oldest is None or now - next(iter(oldest.windows.values())).queued_at <= PATIENCE_S:
            return None
        first = self._first(oldest, light_only=light_only)
        return (oldest, first) if first else None

    def _most_urgent(self, *, light_only: bool) -> tuple[_Class[Window], Window] | None:
        for own in self._classes.values():
            first = self._first(own, light_only=light_only)
            if first is not None:
                return own, first
        return None

    def _first(self, own: _Class[Window], *, light_only: bool) -> Window | None:
        """Whose turn it is in a class."""
        ready = {
            name: some
            for name, tenant in own.tenants.items()
            if (some := [c for c in tenant.ready if c.light or not light_only])
        }
        if not ready:
            return None
        name = min(ready, key=own.shares.standing)
        shares = own.tenants[name].shares
        contender = min(ready[name], key=lambda c: (shares.standing(c), c.taken_s))
        window: Window = next(iter(contender.waiting.values()))
        return window


def _may_share(first: QueuedWindow, other: QueuedWindow) -> bool:
    """Of one class already."""
    shorter, longer = sorted((first.seconds, other.seconds))
    return (
        (longer <= _LENGTH_RATIO * shorter or longer - shorter <= _LENGTH_SLACK_S)
        and first.contender.light == other.contender.light
        and first.options == other.options
    )


def _that_fit(windows: Sequence[Window], seconds: float) -> list[Window]:
    """As many of the first as have no more audio than that."""
    fitting: list[Window] = []
    for window in windows:
        seconds -= window.seconds
        if seconds < 0:
            break
        fitting.append(window)
    return fitting
