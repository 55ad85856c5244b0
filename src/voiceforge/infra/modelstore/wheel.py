"""Models that lie inside an installed Python package. Finds them without importing the package."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from voiceforge.infra.modelstore.base import InstalledModel, ModelFiles
from voiceforge.speech.engines.catalog import CatalogEntry


@dataclass(frozen=True, slots=True)
class WheelFolder:
    """Where a distribution keeps a model: its import name, and the folder inside it."""

    module: str
    folder: str


WHEEL_FOLDERS: Mapping[str, WheelFolder] = MappingProxyType(
    {"moonshine-tiny-en": WheelFolder("moonshine_voice", "assets/tiny-en")}
)


def find_in_wheel(
    entry: CatalogEntry, folders: Mapping[str, WheelFolder] = WHEEL_FOLDERS
) -> InstalledModel | None:
    """The entry's files, with the version of the distribution that is really installed as revision."""
    where = folders.get(entry.id)
    if where is None:
        return None
    for root in _package_folders(where.module):
        path = root / where.folder
        if all((path / name).is_file() for name in entry.required):
            stats = [(path / name).stat() for name in entry.required]
            return InstalledModel(
                id=entry.id,
                files=ModelFiles(path, _version(entry)),
                origin="wheel",
                size_bytes=sum(stat.st_size for stat in stats),
                installed_at=max(stat.st_mtime for stat in stats),
            )
    return None


def _package_folders(module: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(module)
    for location in (spec and spec.submodule_search_locations) or ():
        yield Path(location)


def _version(entry: CatalogEntry) -> str:
    try:
        return importlib.metadata.version(entry.source)
    except importlib.metadata.PackageNotFoundError:  # copied in without its metadata, as some freezers do
        return entry.revision
