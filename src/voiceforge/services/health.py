"""Whether this process can do its work: model, disk, memory, device."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from voiceforge.services.engine_room import EngineRoom

Status = Literal["ok", "degraded", "failed"]
_ORDER: tuple[Status, ...] = ("ok", "degraded", "failed")

_LOW_DISK_BYTES = 1 << 30
_LOW_MEMORY_BYTES = 256 << 20
_LOOK_AGAIN_S = 1.0
_OLD_S = 10.0
"""A look at disk and memory that is older is not told."""


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    status: Status
    detail: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HealthReport:
    """status: the worst of its checks."""

    status: Status
    checks: tuple[Check, ...]
    version: str
    uptime_s: float


class Health:
    """Args:
    default_model: must be loaded for the server to be ready.
    """

    def __init__(
        self,
        *,
        engines: EngineRoom,
        default_model: str,
        data_dir: Path,
        version: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engines = engines
        self._default_model = default_model
        self._data_dir = data_dir
        self._version = version
        self._clock = clock
        self._started = clock()
        self._draining = False
        self._load_failure: str | None = None
        self._others: Callable[[], Sequence[Check]] = tuple
        self._seen: tuple[Check, ...] = ()
        self._seen_at = -_OLD_S
        self._looking: asyncio.Future[tuple[Check, ...]] | None = None

    def watch(self, checks: Callable[[], Sequence[Check]]) -> None:
        """These belong to the reports too. They are asked for from any thread."""
        self._others = checks

    def drain(self) -> None:
        """From now on not ready: the server finishes what it has and takes nothing new."""
        self._draining = True

    def model_failed(self, message: str) -> None:
        """The default model could not be loaded; `message` says why."""
        self._load_failure = message

    def report(self) -> HealthReport:
        """Everything worth knowing. Blocks until the disk has answered."""
        return self._whole(self._look())

    async def report_seen(self) -> HealthReport:
        """As `report`, for the event loop, which waits for nobody: disk and memory are those of an earlier
        look, at most ten seconds ago, and are looked at again meanwhile. The first who asks waits."""
        age_s = self._clock() - self._seen_at
        if age_s > _LOOK_AGAIN_S and self._looking is None:
            self._looking = asyncio.ensure_future(asyncio.to_thread(self._look))
            self._looking.add_done_callback(self._has_looked)
        if age_s > _OLD_S and self._looking is not None:
            return self._whole(await asyncio.shield(self._looking))
        return self._whole(self._seen)

    def _has_looked(self, looking: asyncio.Future[tuple[Check, ...]]) -> None:
        self._looking = None
        # Whoever waits for a look that failed is told; another one is made for those who come then.
        if not looking.cancelled() and looking.exception() is None:
            self._seen, self._seen_at = looking.result(), self._clock()

    def ready(self) -> HealthReport:
        """ "failed" unless requests are welcome: the default model is loaded and nobody is leaving. What
        others watch degrades it at most: requests that need it are told so, all others are answered."""
        serving = (
            Check("serving", "failed", "shutting down") if self._draining else Check("serving", "ok", "yes")
        )
        return self._report((self._model(), serving, *self._others()))

    def _look(self) -> tuple[Check, ...]:
        return self._disk(), self._memory()

    def _whole(self, seen: tuple[Check, ...]) -> HealthReport:
        return self._report((self._model(), *seen, self._runs_on(), self._queue(), *self._others()))

    def _report(self, checks: tuple[Check, ...]) -> HealthReport:
        worst = max(checks, key=lambda check: _ORDER.index(check.status)).status
        return HealthReport(worst, checks, self._version, self._clock() - self._started)

    def _model(self) -> Check:
        data = {"default": self._default_model, "loaded": sorted(self._engines.loaded())}
        if self._engines.is_loaded(self._default_model):
            return Check("model", "ok", "loaded", data)
        return Check("model", "failed", self._load_failure or "loading", data)

    def _disk(self) -> Check:
        existing = next(p for p in (self._data_dir, *self._data_dir.parents) if p.exists())
        usage = shutil.disk_usage(existing)
        data = {"free_bytes": usage.free, "total_bytes": usage.total}
        if not os.access(existing, os.W_OK):
            return Check("disk", "degraded", "the data folder cannot be written", data)
        low = usage.free < _LOW_DISK_BYTES
        return Check("disk", "degraded" if low else "ok", "less than 1 GiB free" if low else "enough", data)

    def _memory(self) -> Check:
        import psutil

        free = psutil.virtual_memory().available
        data = {"available_bytes": free, "process_bytes": psutil.Process().memory_info().rss}
        low = free < _LOW_MEMORY_BYTES
        return Check("memory", "degraded" if low else "ok", "under 256 MiB left" if low else "enough", data)

    def _runs_on(self) -> Check:
        """What models run on, and whether that is what was wished for them."""
        known = self._engines.runs_on()
        names = sorted({runs_on.name for runs_on in known.values()})
        notes = sorted({note for runs_on in known.values() for note in runs_on.notes})
        detail = "; ".join([*(names or ["known once a model is loaded"]), *notes])
        data = {"models": {model_id: runs_on.name for model_id, runs_on in sorted(known.items())}}
        return Check("device", "degraded" if notes else "ok", detail, data)

    def _queue(self) -> Check:
        waiting = {
            model_id: {priority.name.lower(): n for priority, n in batcher.waiting().items()}
            for model_id, batcher in self._engines.loaded().items()
        }
        return Check(
            "queue", "ok", "running", {"open_requests": self._engines.open_tickets(), "waiting": waiting}
        )
