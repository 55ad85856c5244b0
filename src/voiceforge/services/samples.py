"""Real recordings that come with our dependencies, for a first try. Finds them without importing anything."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_PACKAGE = "moonshine_voice"
_NAMES = ("beckett.wav", "two_cities.wav")


def sample_recordings() -> tuple[Path, ...]:
    """Those that are here: ten seconds first, then three quarters of a minute."""
    spec = importlib.util.find_spec(_PACKAGE)
    folders = (spec.submodule_search_locations if spec else None) or ()
    found = (Path(folder) / "assets" / name for folder in folders for name in _NAMES)
    return tuple(path for path in found if path.is_file())
