"""The installed program in processes of its own, with its data in a temporary folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from voiceforge.services.samples import sample_recordings

Completed = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def clips() -> dict[str, Path]:
    """`beckett` (10 s, 16 kHz) and `two_cities` (44 s, 48 kHz), real speech."""
    found = {path.stem: path for path in sample_recordings()}
    if set(found) != {"beckett", "two_cities"}:
        pytest.skip("the sample recordings are not installed")
    return found


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Without settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VOICEFORGE_")}
    return kept | {"VOICEFORGE_DATA_DIR": str(tmp_path / "data"), "COLUMNS": "100"}


@pytest.fixture
def program() -> list[str]:
    return [sys.executable, "-m", "voiceforge.main.cli"]


@pytest.fixture
def voiceforge(program: list[str], environment: dict[str, str], tmp_path: Path) -> Callable[..., Completed]:
    """Runs to the end in an empty folder. `piped`: a file for standard input."""
    folder = tmp_path / "here"
    folder.mkdir()

    def run(
        *arguments: str | Path, piped: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> Completed:
        with (piped or Path(os.devnull)).open("rb") as stdin:
            return subprocess.run(
                [*program, *map(str, arguments)],
                stdin=stdin,
                capture_output=True,
                text=True,
                cwd=folder,
                env=environment | dict(settings or {}),
                timeout=100,
            )

    return run


@pytest.fixture
def start(
    program: list[str], environment: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts it and leaves it running; what still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str | Path, settings: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        log = (tmp_path / f"stderr-{len(started)}").open("w")
        process = subprocess.Popen(
            [*program, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=tmp_path,
            env=environment | dict(settings or {}),
        )
        log.close()
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
