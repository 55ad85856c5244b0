"""Catalog entry + files → a loaded engine. Imports only the runtime that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import assert_never

from voiceforge.speech.engines.base import Engine
from voiceforge.speech.engines.catalog import CatalogEntry
from voiceforge.speech.engines.device import DeviceChoice
from voiceforge.speech.transcript.types import ModelRef


def load_engine(
    entry: CatalogEntry, path: Path, revision: str, *, cores: int, device: Callable[[], DeviceChoice]
) -> Engine:
    """Load a model's files. Slow; takes the memory of the model.

    Args:
        path: folder of the files. revision: which files they are.
        cores: for engines that run on the CPU only: how many decodes may run at once, each on one.
        device: where engines that have a choice run; asked only for those, since it loads a runtime.

    Raises:
        DependencyMissing, ModelNotInstalled, EngineFailed: see the engine.
    """
    model = ModelRef(entry.id, revision)
    match entry.runtime:
        case "moonshine_ort":
            from voiceforge.speech.engines.moonshine_ort import MoonshineOrt

            return MoonshineOrt(path, model, parallel_decodes=cores)
        case "whisper_ct2":
            from voiceforge.speech.engines.whisper_ct2 import WhisperCt2

            known = entry.capabilities
            return WhisperCt2(
                path,
                model,
                device=device(),
                languages=known.languages if known is not None else None,
                tasks=known.tasks if known is not None else None,
            )
        case _:
            assert_never(entry.runtime)
