"""Catalog entry + files → a loaded engine. Imports only the runtime that is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import assert_never

from voiceforge.errors import EngineFailed
from voiceforge.speech.engines.base import Engine
from voiceforge.speech.engines.catalog import CatalogEntry
from voiceforge.speech.engines.device import ON_CPU, DeviceChoice, RunsOn
from voiceforge.speech.transcript.types import ModelRef


def load_engine(
    entry: CatalogEntry, path: Path, revision: str, *, cores: int, device: Callable[[], DeviceChoice]
) -> tuple[Engine, RunsOn]:
    """Load a model's files, and tell what it runs on. Slow; takes the memory of the model.

    Args:
        path: folder of the files. revision: which files they are.
        cores: for engines that run on the CPU only: how many decodes may run at once, each on one.
        device: where engines that have a choice run; asked only for those, since it loads a runtime.

    Raises:
        DependencyMissing, ModelNotInstalled, EngineFailed: see the engine; EngineFailed also where files
            are not what the catalog says.
    """
    digests = entry.sha256 if revision == entry.revision else ()
    with ThreadPoolExecutor(len(digests) or 1) as threads:
        checks = [threads.submit(_check_file, entry, path / name, digest) for name, digest in digests]
        make = _maker(entry, path, ModelRef(entry.id, revision), cores, device)
        for check in checks:
            check.result()
    return make()


Maker = Callable[[], tuple[Engine, RunsOn]]


def _maker(
    entry: CatalogEntry, path: Path, model: ModelRef, cores: int, device: Callable[[], DeviceChoice]
) -> Maker:
    """Imports the runtime, which takes as long as reading the files; what it returns loads them."""
    match entry.runtime:
        case "moonshine_ort":
            from voiceforge.speech.engines.moonshine_ort import MoonshineOrt

            return lambda: (MoonshineOrt(path, model, parallel_decodes=cores), ON_CPU)
        case "whisper_ct2":
            from voiceforge.speech.engines.whisper_ct2 import WhisperCt2

            known, choice = entry.capabilities, device()
            return lambda: (
                WhisperCt2(
                    path,
                    model,
                    device=choice,
                    languages=known.languages if known is not None else None,
                    tasks=known.tasks if known is not None else None,
                ),
                choice.runs_on,
            )
        case _:
            assert_never(entry.runtime)


def _check_file(entry: CatalogEntry, path: Path, digest: str) -> None:
    """A file that was damaged after its installation would load, and make words of its own."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return  # the engine knows best what it lacks
    except OSError as error:
        raise EngineFailed(f"{path.name} of model {entry.id} cannot be read") from error
    if found != digest:
        raise EngineFailed(f"{path.name} of model {entry.id} is damaged: install it again")
