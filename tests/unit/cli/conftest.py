"""The command line around scripted services, and a folder to work in."""

from __future__ import annotations

from pathlib import Path

import pytest

from voiceforge.testing.scripted_cli import Cli, ScriptedCliTranscriptions, ShelfStore


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    store = ShelfStore()
    store.put("moonshine-tiny-en")
    return Cli(ScriptedCliTranscriptions(), store, tmp_path / "data")


@pytest.fixture
def recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the command: a.wav, b.wav, sub/a.mp3 and things that are no recordings."""
    folder = tmp_path / "here"
    for name in ("talks/a.wav", "talks/b.wav", "talks/sub/a.MP3", "talks/notes.txt", "talks/.hidden/c.wav"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    monkeypatch.chdir(folder)
    return folder
