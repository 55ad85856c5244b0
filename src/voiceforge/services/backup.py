"""Copies of the embedded default, SQLite and a folder of blobs, while the server runs; and back again.

A copy is a folder, or an uncompressed tar file, with `voiceforge.db`, `blobs/…` and `manifest.json`, which
has the SHA-256 of everything. Every blob that its database names is in it. Everything here blocks.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol

from voiceforge.errors import InvalidRequest, VoiceForgeError
from voiceforge.infra.blobs.base import check_key
from voiceforge.infra.blobs.off_loop import disk_errors
from voiceforge.infra.db.sqlite_copy import NamedBlob, blobs_of, copy_database, revision_of

DATABASE, BLOBS, MANIFEST = "voiceforge.db", "blobs", "manifest.json"
_FORMAT = 1
_MOST_SNAPSHOTS = 20
_READ_BYTES = 1 << 20
_MOST_MANIFEST_BYTES = 1 << 30

OnProgress = Callable[[int, int], None]
"""Bytes done, bytes in all."""


class BackupDamaged(VoiceForgeError):
    """The copy is not what its manifest says; nothing was restored."""

    code = "backup_damaged"


class BackupFailed(VoiceForgeError):
    """There is no whole copy."""

    code = "backup_failed"


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy holds. size_bytes: of all files."""

    recordings: int
    size_bytes: int
    revision: str | None


class Backups:
    """Of one data folder.

    Args:
        on_done: told `backup.made` or `backup.restored`, once it is.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        version: str,
        clock: Callable[[], float] = time.time,
        on_done: Callable[[str, Copied], None] = lambda what, copied: None,
    ) -> None:
        self._on_done = on_done
        self._data_dir = data_dir
        self._version = version
        self._clock = clock

    def make(self, target: Path, on_progress: OnProgress = lambda done, total: None) -> Copied:
        """Copy to a folder, or to one file where the name ends in `.tar`; it appears when it is whole.

        Raises:
            InvalidRequest: there is something already, or there is nothing to copy.
            StorageFull, Unavailable, BackupFailed
        """
        if not (self._data_dir / DATABASE).is_file():
            raise InvalidRequest("there is no database in the data folder yet: nothing to copy")
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise InvalidRequest(f"{target} exists already; name a new one")
        partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
        with disk_errors():
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with ExitStack() as stack:
                beside = tempfile.TemporaryDirectory(dir=target.parent, prefix=".copy-")
                scratch = stack.enter_context(beside)
                kind = _TarTarget if target.suffix == ".tar" else _FolderTarget
                with disk_errors():
                    into = kind(partial)
                stack.callback(into.close)
                copied = self._copy(Path(scratch) / DATABASE, into, on_progress)
            with disk_errors():
                if target.is_dir():
                    target.rmdir()
                partial.rename(target)
            self._on_done("backup.made", copied)
            return copied
        finally:
            _remove(partial)

    def _copy(self, snapshot: Path, into: _Target, on_progress: OnProgress) -> Copied:
        """Blobs after the database: each was there before its row. What was erased between is named no more
        by a newer copy of the database."""
        files: dict[str, dict[str, Any]] = {}
        done_bytes = 0
        for _ in range(_MOST_SNAPSHOTS):
            snapshot.unlink(missing_ok=True)
            copy_database(self._data_dir / DATABASE, snapshot)
            named = blobs_of(snapshot)
            total_bytes = sum(blob.size_bytes for blob in named) + snapshot.stat().st_size
            gone = False
            for blob in named:
                name = f"{BLOBS}/{check_key(blob.key)}"
                if name in files:
                    continue
                size_bytes = self._copy_blob(blob, name, into)
                if size_bytes is None:
                    gone = True
                    break
                files[name] = {"size": size_bytes, "sha256": blob.sha256}
                done_bytes += size_bytes
                on_progress(done_bytes, total_bytes)
            if not gone:
                break
        else:
            raise BackupFailed("recordings were erased faster than they could be copied; try again")
        with disk_errors(), snapshot.open("rb") as file:
            files[DATABASE] = into.add(DATABASE, file, snapshot.stat().st_size)
        kept = {f"{BLOBS}/{blob.key}" for blob in named} | {DATABASE}
        into.drop(set(files) - kept)
        revision = revision_of(snapshot)
        manifest = {
            "format": _FORMAT,
            "version": self._version,
            "revision": revision,
            "created_at": self._clock(),
            "files": {name: files[name] for name in sorted(kept)},
        }
        data = json.dumps(manifest, indent=1).encode()
        with disk_errors():
            into.add(MANIFEST, BytesIO(data), len(data))
        size = sum(int(files[name]["size"]) for name in kept)
        on_progress(size, size)
        return Copied(len(named), size, revision)

    def _copy_blob(self, blob: NamedBlob, name: str, into: _Target) -> int | None:
        """Its size; None: it is not there any more."""
        try:
            file = (self._data_dir / BLOBS / blob.key).open("rb")
        except FileNotFoundError:
            return None
        with file, disk_errors():
            added = into.add(name, file, os.fstat(file.fileno()).st_size)
        if added["sha256"] != blob.sha256:
            raise BackupFailed("a recording in the data folder is damaged; no copy was made")
        return int(added["size"])

    def restore(
        self, source: Path, *, force: bool = False, on_progress: OnProgress = lambda done, total: None
    ) -> Copied:
        """Put a copy in the place of what is in the data folder, which no server may use now. Everything is
        checked before anything is replaced.

        Args:
            force: also where there is a database or a recording already.

        Raises:
            InvalidRequest: there is no such copy; there is something already.
            BackupDamaged, StorageFull, Unavailable
        """
        if not force and ((self._data_dir / DATABASE).exists() or any((self._data_dir / BLOBS).glob("*"))):
            raise InvalidRequest(
                f"there are jobs in {self._data_dir} already; --force replaces them by those of the copy"
            )
        with ExitStack() as stack, disk_errors():
            found = stack.enter_context(_source(source))
            manifest = _manifest(found)
            self._data_dir.mkdir(parents=True, exist_ok=True)
            staged = Path(
                stack.enter_context(tempfile.TemporaryDirectory(dir=self._data_dir, prefix=".restore-"))
            )
            new, old = staged / "new", staged / "old"
            new.mkdir()
            old.mkdir()
            done_bytes, total_bytes = 0, sum(int(file["size"]) for file in manifest["files"].values())
            for name, told in manifest["files"].items():
                _take(found, name, told, new / name)
                done_bytes += int(told["size"])
                on_progress(done_bytes, total_bytes)
            named = blobs_of(new / DATABASE)
            if any(not (new / BLOBS / blob.key).is_file() for blob in named):
                raise BackupDamaged("a recording that its database names is not in the copy")
            revision = revision_of(new / DATABASE)
            (new / BLOBS).mkdir(exist_ok=True)
            self._replace(new, old)
        copied = Copied(len(named), total_bytes, revision)
        self._on_done("backup.restored", copied)
        return copied

    def _replace(self, new: Path, old: Path) -> None:
        """Move what is there to `old`, and what is in `new` to its place; or leave all as it was."""
        moved: list[tuple[Path, Path]] = []

        def move(source: Path, target: Path) -> None:
            if source.exists():
                source.rename(target)
                moved.append((source, target))

        try:
            for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", BLOBS):
                move(self._data_dir / name, old / name)
            for name in (BLOBS, DATABASE):
                move(new / name, self._data_dir / name)
        except BaseException:
            for source, target in reversed(moved):
                target.rename(source)
            raise
        os.sync()


class _Target(Protocol):
    def add(self, name: str, content: IO[bytes], size_bytes: int) -> dict[str, Any]: ...
    def drop(self, names: set[str]) -> None: ...
    def close(self) -> None: ...


class _FolderTarget:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700)

    def add(self, name: str, content: IO[bytes], size_bytes: int) -> dict[str, Any]:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("wb") as file:
            told = _pour(content, file)
            file.flush()
            os.fsync(file.fileno())
        return told

    def drop(self, names: set[str]) -> None:
        for name in names:
            (self._folder / name).unlink()

    def close(self) -> None:
        pass


class _TarTarget:
    def __init__(self, path: Path) -> None:
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def add(self, name: str, content: IO[bytes], size_bytes: int) -> dict[str, Any]:
        header = tarfile.TarInfo(name)
        header.size, header.mode, header.mtime = size_bytes, 0o600, int(time.time())
        hashing = _Hashing(content)
        self._tar.addfile(header, hashing)
        return {"size": size_bytes, "sha256": hashing.digest.hexdigest()}

    def drop(self, names: set[str]) -> None:
        """They stay; the manifest does not name them, and nobody restores them."""

    def close(self) -> None:
        with self._file:
            self._tar.close()
            self._file.flush()
            os.fsync(self._file.fileno())


class _Hashing:
    def __init__(self, content: IO[bytes]) -> None:
        self._content = content
        self.digest = hashlib.sha256()

    def read(self, size_bytes: int = -1) -> bytes:
        data = self._content.read(size_bytes)
        self.digest.update(data)
        return data


def _pour(content: IO[bytes], file: IO[bytes]) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    while piece := content.read(_READ_BYTES):
        digest.update(piece)
        file.write(piece)
        size += len(piece)
    return {"size": size, "sha256": digest.hexdigest()}


Find = Callable[[str], IO[bytes]]


@contextmanager
def _source(path: Path) -> Iterator[Find]:
    """What opens its files by name; that raises BackupDamaged where one is missing."""
    if path.is_dir():

        def in_folder(name: str) -> IO[bytes]:
            try:
                return (path / name).open("rb")
            except OSError:
                raise BackupDamaged(f"{name} is not in the copy") from None

        yield in_folder
        return
    try:
        tar = tarfile.open(path, "r:")  # noqa: SIM115
    except (OSError, tarfile.TarError):
        raise InvalidRequest(f"{path} is no copy that `voiceforge backup` made") from None
    with tar:

        def in_tar(name: str) -> IO[bytes]:
            with suppress(KeyError, tarfile.TarError, OSError):
                if (file := tar.extractfile(name)) is not None:
                    return file
            raise BackupDamaged(f"{name} is not in the copy")

        yield in_tar


def _manifest(find: Find) -> dict[str, Any]:
    try:
        with find(MANIFEST) as file:
            found = json.loads(file.read(_MOST_MANIFEST_BYTES))
        assert found["format"] == _FORMAT
        assert DATABASE in found["files"]
        for name, told in found["files"].items():
            folder, _, key = name.partition("/")
            assert name == DATABASE or (folder == BLOBS and check_key(key))
            assert isinstance(told["size"], int)
            assert isinstance(told["sha256"], str)
    except (BackupDamaged, ValueError, KeyError, TypeError, AttributeError, AssertionError, tarfile.TarError):
        raise InvalidRequest("this is no copy that `voiceforge backup` of this version made") from None
    assert isinstance(found, dict)
    return found


def _take(find: Find, name: str, told: dict[str, Any], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with find(name) as content, target.open("wb") as file:
            got = _pour(content, file)
            file.flush()
            os.fsync(file.fileno())
    except tarfile.TarError:
        got = {}
    if got != {"size": told["size"], "sha256": told["sha256"]}:
        raise BackupDamaged(f"{name} of the copy is damaged")
    target.chmod(0o600)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
