"""The seam to model files: which are here, where, and how to get or drop them. Loads none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from voiceforge.speech.engines.catalog import CatalogEntry, Origin


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A folder that holds every file the runtime requires, and which revision they are."""

    path: Path
    revision: str


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """size_bytes: of its files on disk. installed_at: Unix seconds. licence: as its hub names it; None where
    that is not known."""

    id: str
    files: ModelFiles
    origin: Origin
    size_bytes: int
    installed_at: float
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is: `file` is under way; the bytes count the whole model, and include what an earlier,
    broken pull had already brought."""

    file: str
    done_bytes: int
    total_bytes: int | None


OnProgress = Callable[[PullProgress], None]


class ModelStore(Protocol):
    """Safe to share between threads; every look-up reads the disk afresh."""

    def installed(self) -> list[InstalledModel]:
        """What was pulled and what came with the package; folders elsewhere are not known here."""
        ...

    def locate(self, entry: CatalogEntry) -> InstalledModel | None:
        """The entry's own revision if it is here, else the newest one that is. Never uses the network."""
        ...

    async def pull(self, entry: CatalogEntry, on_progress: OnProgress) -> InstalledModel:
        """Bring the entry's files, verified, all or none. A broken pull is continued by the next one.
        Does nothing where a pinned revision is already here.

        Args:
            on_progress: called often, from the event loop; must return at once.

        Raises:
            ModelNotFound: the hub has no such model, or it is none for this runtime.
            PermissionDenied: the hub wants a (different) token.
            UpstreamFailed: the hub broke off, or sent other bytes than it promised.
            Unavailable: offline, or too little disk space.
            DependencyMissing: no endpoint is configured and no hub library installed that knows one.
            Conflict: another pull or removal of it is under way; or it can't be pulled.
        """
        ...

    def remove(self, entry: CatalogEntry) -> None:
        """Drop all its revisions.

        Raises:
            ModelNotInstalled: nothing of it is here.
            Conflict: it came with the package or is the user's own folder; or a pull is under way.
        """
        ...
