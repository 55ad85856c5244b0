"""Where models live: in this process, or each in a child process that everybody shares."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from voiceforge.speech.engines.catalog import CatalogEntry
from voiceforge.speech.engines.device import DeviceWish, RunsOn
from voiceforge.speech.engines.tickets import BatcherLimits, BatchObserver, DecodeQueue


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """All that is needed to load one model and to queue for it.

    path, revision: its files and which they are.
    cores: how many decodes of a CPU engine may run at once.
    device, compute_type, threads: wishes of engines that have a choice; `threads` None: all cores.
    warm_up: decode something before the first window, so that nobody waits for what a runtime does only once.
    """

    entry: CatalogEntry
    path: Path
    revision: str
    cores: int
    device: DeviceWish = "auto"
    compute_type: str = "auto"
    threads: int | None = None
    limits: BatcherLimits = field(default_factory=BatcherLimits)
    warm_up: bool = True


class EngineHosts(Protocol):
    """Brings models into memory. Thread-safe."""

    def start(self, model_id: str, observer: BatchObserver) -> DecodeQueue:
        """The queue in front of a model that is loaded now; closing it gives the memory back. Blocks.

        Raises:
            ModelNotInstalled, DependencyMissing, EngineFailed: the model cannot be loaded.
            EngineCrashed: its process ended before it was ready.
        """
        ...

    def renew(self, model_id: str) -> bool:
        """Load the model anew beside the one in memory, then put it in its place: requests notice nothing.
        False where that cannot be done here, and the model must be unloaded first. Blocks.

        Raises: as `start`; the old one then stays.
        """
        ...

    def memory_bytes(self, model_id: str) -> int | None:
        """What the model takes, resident; None where it cannot be told from the rest of this process."""
        ...

    def runs_on(self, model_id: str) -> RunsOn | None:
        """What a model that was started runs on; None where that is not known."""
        ...

    def close(self) -> None:
        """End what is left of them. Idempotent."""
        ...
