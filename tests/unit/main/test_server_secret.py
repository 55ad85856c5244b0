"""The secret of an installation."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from voiceforge.errors import ConfigurationError
from voiceforge.main.server_secret import server_secret
from voiceforge.main.settings import Settings


def settings(folder: Path, **auth: object) -> Settings:
    return Settings.model_validate({"data_dir": folder, "auth": auth})


def test_all_who_start_at_once_share_one(tmp_path: Path) -> None:
    def start(_number: int) -> bytes:
        return server_secret(settings(tmp_path / "new")).derived("keys")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(start, range(32)))) == 1
    (file,) = (tmp_path / "new").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_purposes_and_installations_differ(tmp_path: Path) -> None:
    one, other = (server_secret(settings(tmp_path / name)) for name in "ab")
    configured = server_secret(settings(tmp_path / "c", secret="x" * 32))
    assert len({secret.derived(p) for secret in (one, other, configured) for p in ("keys", "tokens")}) == 6
    assert not (tmp_path / "c").exists()


def test_a_folder_that_takes_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError):
        server_secret(settings(tmp_path / "file"))


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="32"):
        settings(tmp_path, secret="short")
