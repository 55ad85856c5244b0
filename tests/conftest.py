"""What all tests share. In CI the same examples are tried every time, so that a run that was green stays so;
elsewhere hypothesis looks for new ones. Each process of tests has a folder of its own for temporary files, so
that one that looks what is left there sees nothing of another."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's affair, not the test's.
settings.register_profile("new", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("new"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "new")

TEMP = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    # Those of `tmp_path` stay where pytest keeps the last ones to be looked at.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    # Short: sockets lie in it, whose paths may not be long.
    folder = config.stash[TEMP] = Path(tempfile.mkdtemp(prefix="vf-"))
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[TEMP], ignore_errors=True)
