"""Model files in one folder of this machine: `<root>/<model>/<revision>/…`, plus those inside packages.

A revision's folder appears in one rename, complete and with a record of what it holds; until then its
files grow in `<root>/.staging/`, where the next pull finds and continues them. So a crash at any moment
leaves nothing that looks installed.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from voiceforge.errors import Conflict, ModelNotFound, ModelNotInstalled, Unavailable
from voiceforge.infra.modelstore.base import InstalledModel, ModelFiles, OnProgress, PullProgress
from voiceforge.infra.modelstore.hub import PARTIAL_SUFFIX, Hub, HubFile, HubSession, HubSnapshot
from voiceforge.infra.modelstore.wheel import find_in_wheel
from voiceforge.speech.engines.catalog import CATALOG, CatalogEntry

RECORD = "voiceforge.json"
STAGING = ".staging"
SPARE_BYTES = 256 << 20
"""Left free beside the model: a full disk breaks more than the pull."""


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


@dataclass(frozen=True, slots=True)
class _Record:
    """Beside the files of an installed revision: where they came from, and each with size and hash."""

    id: str
    source: str
    revision: str
    files: dict[str, tuple[int, str]]
    installed_at: float
    licence: str | None = None

    @classmethod
    def read(cls, path: Path) -> _Record | None:
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            files = {str(row["name"]): (int(row["size_bytes"]), str(row["hash"])) for row in raw["files"]}
            return cls(
                str(raw["id"]),
                str(raw["source"]),
                str(raw["revision"]),
                files,
                float(raw["installed_at"]),
                str(raw["licence"]) if raw.get("licence") else None,
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        files = [{"name": n, "size_bytes": s, "hash": h} for n, (s, h) in sorted(self.files.items())]
        body = {
            "id": self.id,
            "source": self.source,
            "revision": self.revision,
            "installed_at": self.installed_at,
            "licence": self.licence,
            "files": files,
        }
        path.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")


class DiskModelStore:
    """See `ModelStore`.

    Args:
        root: the folder of this store; made when the first model is pulled.
        offline: never use the network.
        free_bytes: space left on the disk of a folder.
    """

    def __init__(
        self,
        root: Path,
        hub: Hub,
        *,
        offline: bool = False,
        free_bytes: Callable[[Path], int] = _free_bytes,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._root = root
        self._hub = hub
        self._offline = offline
        self._free_bytes = free_bytes
        self._wall_clock = wall_clock

    def installed(self) -> list[InstalledModel]:
        bundled = (find_in_wheel(entry) for entry in CATALOG if entry.origin == "wheel")
        pulled = (model for folder in self._model_folders() for model in _revisions(folder))
        return [*(model for model in bundled if model), *pulled]

    def locate(self, entry: CatalogEntry) -> InstalledModel | None:
        if entry.origin == "wheel":
            return find_in_wheel(entry)
        if entry.origin == "folder":
            return _user_folder(entry)
        revisions = _revisions(self._folder(entry.id))
        exact = (model for model in revisions if model.files.revision == entry.revision)
        newest = max(revisions, key=lambda model: model.installed_at, default=None)
        return next(exact, newest)

    async def pull(self, entry: CatalogEntry, on_progress: OnProgress) -> InstalledModel:
        if entry.origin != "hub":
            found = self.locate(entry)
            if found is not None:
                return found
            if entry.origin == "wheel":
                raise Conflict(f"{entry.id} comes with {entry.source}: reinstall that package")
            raise ModelNotFound(f"{entry.id} is no folder with a whole model", field="model")
        if entry.pinned and (here := self._exact(entry, entry.revision)):
            return here
        if self._offline:
            raise Unavailable(f"{entry.id} can't be pulled: the setting models.offline is on")
        with _disk_errors(), self._lock(entry.id):
            async with self._hub.connect() as session:
                snapshot = await session.snapshot(entry.source, entry.revision)
                return self._exact(entry, snapshot.commit) or await self._bring(
                    entry, session, snapshot, on_progress
                )

    def remove(self, entry: CatalogEntry) -> None:
        if entry.origin == "wheel":
            raise Conflict(f"{entry.id} comes with {entry.source}, a part of VoiceForge; it can't be removed")
        if entry.origin == "folder":
            raise Conflict(f"{entry.id} is a folder of yours: remove it yourself")
        staged, folder = self._root / STAGING / _folder_name(entry.id), self._folder(entry.id)
        if not folder.exists() and not staged.exists():
            raise ModelNotInstalled(f"model {entry.id} is not installed", field="model")
        with _disk_errors(), self._lock(entry.id):
            if folder.exists():
                # First out of sight in one step: half a model must never look like one.
                doomed = self._root / STAGING / f".removed-{uuid.uuid4().hex}"
                folder.rename(doomed)
                shutil.rmtree(doomed)
            shutil.rmtree(staged, ignore_errors=True)

    async def _bring(
        self, entry: CatalogEntry, session: HubSession, snapshot: HubSnapshot, on_progress: OnProgress
    ) -> InstalledModel:
        wanted = _wanted(entry, snapshot)
        staging = self._root / STAGING / _folder_name(entry.id) / snapshot.commit
        staging.mkdir(parents=True, exist_ok=True)
        total = sum(file.size_bytes for file in wanted)
        here = {file.name: _staged_bytes(staging, file) for file in wanted}
        missing = total - sum(here.values())
        if missing and missing + SPARE_BYTES > (free := self._free_bytes(staging)):
            raise Unavailable(
                f"{entry.id} needs {_gigabytes(missing + SPARE_BYTES)} of disk space; "
                f"{_gigabytes(free)} are free"
            )
        for file in sorted(
            wanted, key=lambda file: file.size_bytes
        ):  # what is wrong shows before the big one
            if (staging / file.name).is_file() and here[file.name] == file.size_bytes:
                continue

            def report(so_far: int, name: str = file.name) -> None:
                here[name] = so_far
                on_progress(PullProgress(name, sum(here.values()), total))

            report(here[file.name])
            await session.download(snapshot, file, staging / file.name, report)
        return await asyncio.to_thread(self._publish, entry, snapshot, wanted, staging)

    def _publish(
        self, entry: CatalogEntry, snapshot: HubSnapshot, files: list[HubFile], staging: Path
    ) -> InstalledModel:
        _Record(
            id=entry.id,
            source=entry.source,
            revision=snapshot.commit,
            files={file.name: (file.size_bytes, file.digest) for file in files},
            installed_at=self._wall_clock(),
            licence=snapshot.licence,
        ).write(staging / RECORD)
        target = self._folder(entry.id) / snapshot.commit
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():  # what a hand or a broken disk left there; `_exact` found it unusable
            target.rename(self._root / STAGING / f".removed-{uuid.uuid4().hex}")
        staging.rename(target)
        for folder in (target, target.parent):
            _sync_folder(folder)
        shutil.rmtree(staging.parent, ignore_errors=True)  # older commits' beginnings
        for left in (self._root / STAGING).glob(".removed-*"):
            shutil.rmtree(left, ignore_errors=True)
        installed = self._exact(entry, snapshot.commit)
        if installed is None:
            raise Unavailable(f"{entry.id} was pulled, but its files cannot be read back")
        return installed

    def _exact(self, entry: CatalogEntry, revision: str) -> InstalledModel | None:
        return _installed(self._folder(entry.id) / revision)

    def _folder(self, model_id: str) -> Path:
        return self._root / _folder_name(model_id)

    def _model_folders(self) -> Iterator[Path]:
        if self._root.is_dir():
            yield from sorted(p for p in self._root.iterdir() if p.is_dir() and p.name != STAGING)

    @contextmanager
    def _lock(self, model_id: str) -> Iterator[None]:
        """One pull or removal of a model at a time, also between processes; ends with its holder."""
        folder = self._root / STAGING
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(
            folder / f"{_folder_name(model_id)}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
        )
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Conflict(f"{model_id} is being pulled or removed by another process") from error
            yield
        finally:
            os.close(handle)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"the models folder can't be used: {error.strerror or 'disk error'}") from error


def _folder_name(model_id: str) -> str:
    """Ids have at most one slash and no `--`, so this can be undone."""
    return model_id.replace("/", "--")


def _revisions(folder: Path) -> list[InstalledModel]:
    if not folder.is_dir():
        return []
    found = (_installed(path) for path in sorted(folder.iterdir()) if path.is_dir())
    return [model for model in found if model is not None]


def _installed(path: Path) -> InstalledModel | None:
    """None where the folder has no record, or not the files it speaks of."""
    record = _Record.read(path / RECORD)
    if record is None:
        return None
    for name, (size_bytes, _) in record.files.items():
        file = path / name
        if not file.is_file() or file.stat().st_size != size_bytes:
            return None
    return InstalledModel(
        id=record.id,
        files=ModelFiles(path, record.revision),
        origin="hub",
        size_bytes=sum(size_bytes for size_bytes, _ in record.files.values()),
        installed_at=record.installed_at,
        licence=record.licence,
    )


def _user_folder(entry: CatalogEntry) -> InstalledModel | None:
    path = Path(entry.source).expanduser()
    if _missing(entry, {name for name in entry.files if (path / name).is_file()}):
        return None
    stats = {name: (path / name).stat() for name in sorted(entry.files) if (path / name).is_file()}
    return InstalledModel(
        id=entry.id,
        files=ModelFiles(path.resolve(), f"{entry.revision}-{_signature(stats)}"),
        origin="folder",
        size_bytes=sum(stat.st_size for stat in stats.values()),
        installed_at=max(stat.st_mtime for stat in stats.values()),
    )


def _signature(stats: Mapping[str, os.stat_result]) -> str:
    """Another one where a file has been replaced, without reading gigabytes to find out."""
    seen = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()]
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:12]


def _wanted(entry: CatalogEntry, snapshot: HubSnapshot) -> list[HubFile]:
    missing = _missing(entry, {file.name for file in snapshot.files})
    if missing:
        raise ModelNotFound(
            f"{entry.source} holds no CTranslate2 Whisper model: {', '.join(missing)} missing", field="model"
        )
    return [file for file in snapshot.files if file.name in entry.files]


def _missing(entry: CatalogEntry, present: set[str]) -> list[str]:
    return [need for need in entry.required if present.isdisjoint(need.split("|"))]


def _staged_bytes(staging: Path, file: HubFile) -> int:
    whole, partial = staging / file.name, staging / f"{file.name}{PARTIAL_SUFFIX}"
    if whole.is_file():
        return whole.stat().st_size if whole.stat().st_size == file.size_bytes else 0
    return min(partial.stat().st_size, file.size_bytes) if partial.is_file() else 0


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"


def _sync_folder(folder: Path) -> None:
    """A rename survives a power cut only once its folder is written."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
