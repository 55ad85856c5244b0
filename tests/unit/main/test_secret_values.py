"""Secrets that the settings only point to, and that they stay secrets."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from voiceforge.errors import ConfigurationError
from voiceforge.main.secret_values import secret_paths
from voiceforge.main.settings import env_name
from voiceforge.main.settings_loading import load_settings, load_with_origins
from voiceforge.main.settings_text import describe

KEY = "VOICEFORGE_API_KEY"
URL = "VOICEFORGE_DATABASE__URL"
DATABASE = "postgresql://someone:planted-secret@db.example/voiceforge"


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(content: bytes | str, name: str = "secret", mode: int = 0o600) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    return write


def key_of(config: Path | None = None, **environ: str) -> str | None:
    key = load_settings(config, environ=environ).api_key
    return None if key is None else key.get_secret_value()


@pytest.mark.parametrize("content", ["hush", "hush\n", "hush\r\n"])
def test_a_variable_names_the_file(written: Callable[..., Path], content: str) -> None:
    assert key_of(VOICEFORGE_API_KEY_FILE=str(written(content))) == "hush"


def test_only_the_last_line_end_is_none_of_the_secret(written: Callable[..., Path]) -> None:
    path = written("open sesame \n\n")
    settings = load_settings(
        environ={
            "VOICEFORGE_SERVER__TLS_CERTIFICATE": "x",
            "VOICEFORGE_SERVER__TLS_KEY_PASSWORD_FILE": str(path),
        }
    )
    assert settings.server.tls_key_password is not None
    assert settings.server.tls_key_password.get_secret_value() == "open sesame \n"


def test_a_pipe_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writing = threading.Thread(target=path.write_text, args=("hush\n",))
    writing.start()
    assert key_of(VOICEFORGE_API_KEY_FILE=str(path)) == "hush"
    writing.join()


def test_toml_names_files_in_any_section(written: Callable[..., Path]) -> None:
    url = written(DATABASE + "\n", "url")
    config = written(
        f'api_key_file = "{written("hush")}"\n[database]\nurl_file = "{url}"\npool_size = 3\n', "a.toml"
    )
    loaded = load_with_origins(config, environ={})
    assert loaded.settings.api_key is not None
    assert loaded.settings.api_key.get_secret_value() == "hush"
    assert loaded.settings.database.url is not None
    assert loaded.settings.database.url.get_secret_value() == DATABASE
    assert loaded.settings.database.pool_size == 3
    assert loaded.origins["database", "url"].kind == "file"


def test_the_environment_wins_over_the_file_and_a_folder_over_nothing_else(
    written: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "voiceforge_api_key").write_text("kept\n")
    (folder / "VOICEFORGE_DATABASE__URL").write_text(DATABASE)
    (folder / "of-another-program").write_bytes(b"\xff")
    plain = written(f'secrets.folder = "{folder}"', "plain.toml")
    loaded = load_with_origins(plain, environ={})
    rows = {row.name: row for row in describe(loaded)}
    assert rows["api_key"].source == rows["database.url"].source == "kept by secrets.folder"
    assert loaded.settings.api_key is not None
    assert loaded.settings.api_key.get_secret_value() == "kept"
    filed = written(f'api_key = "filed"\nsecrets.folder = "{folder}"', "filed.toml")
    assert key_of(filed) == "filed"
    assert key_of(filed, VOICEFORGE_API_KEY_FILE=str(written("named"))) == "named"
    assert key_of(filed, VOICEFORGE_API_KEY="none") is None


def program(tmp_path: Path, text: str) -> str:
    path = tmp_path / "manager.py"
    path.write_text(text)
    return json.dumps([sys.executable, str(path)])


def test_a_program_is_asked_once_for_all(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    command = program(
        tmp_path,
        f"import json\nopen({str(asked)!r}, 'a').write('!')\n"
        f"print(json.dumps({{'voiceforge_api_key': 'kept', {URL!r}: {DATABASE!r}, 'OTHER': 1}}))",
    )
    loaded = load_with_origins(environ={"VOICEFORGE_SECRETS__COMMAND": command})
    assert loaded.settings.api_key is not None
    assert loaded.settings.api_key.get_secret_value() == "kept"
    assert loaded.origins["database", "url"].name == "secrets.command"
    assert asked.read_text() == "!"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise SystemExit(3)", "ended with 3"),
        ("print('planted-secret')", "did not print a JSON object"),
        ("print('[\"planted-secret\"]')", "did not print a JSON object"),
        ('print(\'{"VOICEFORGE_API_KEY": ["planted-secret"]}\')', "VOICEFORGE_API_KEY should be text"),
        ("import time; time.sleep(60)", "took longer than 0.5 s"),
    ],
)
def test_a_program_that_fails_is_an_error_that_tells_nothing(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        load_settings(
            environ={
                "VOICEFORGE_SECRETS__COMMAND": program(tmp_path, text),
                "VOICEFORGE_SECRETS__TIMEOUT_S": "0.5" if "sleep" in text else "30",
            }
        )
    assert raised.value.message.startswith("secrets.command")
    assert "planted-secret" not in raised.value.message


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        ("", 0o600, "is empty"),
        ("\n", 0o600, "is empty"),
        (b"planted-secret\xff", 0o600, "is not UTF-8"),
        ("planted-secret" * 10_000, 0o600, "larger than"),
        ("planted-secret", 0o602, "written by everybody"),
        ("planted secret", 0o600, "printable ASCII"),
    ],
)
def test_a_file_that_cannot_be_a_secret_is_named(
    written: Callable[..., Path], content: bytes | str, mode: int, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        key_of(VOICEFORGE_API_KEY_FILE=str(written(content, mode=mode)))
    assert raised.value.message.startswith("VOICEFORGE_API_KEY_FILE")
    assert "planted" not in raised.value.message


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"VOICEFORGE_API_KEY_FILE: .*none cannot be read: No such file"
    ):
        key_of(VOICEFORGE_API_KEY_FILE=str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match=r"secrets\.folder: .*none cannot be read"):
        key_of(VOICEFORGE_SECRETS__FOLDER=str(tmp_path / "none"))


def test_a_value_and_a_file_at_once_are_a_mistake(written: Callable[..., Path]) -> None:
    secret = written("hush")
    with pytest.raises(
        ConfigurationError, match="VOICEFORGE_API_KEY_FILE: set either this or VOICEFORGE_API_KEY"
    ):
        key_of(VOICEFORGE_API_KEY_FILE=str(secret), VOICEFORGE_API_KEY="other")
    config = written(f'api_key = "other"\napi_key_file = "{secret}"', "a.toml")
    with pytest.raises(ConfigurationError, match="api_key_file: set either this or api_key"):
        key_of(config)


def test_what_is_no_secret_has_no_file(written: Callable[..., Path]) -> None:
    with pytest.raises(ConfigurationError, match="VOICEFORGE_MODEL_FILE: unknown setting"):
        key_of(VOICEFORGE_MODEL_FILE=str(written("tiny")))


def test_a_file_that_everybody_can_read_is_told_of(written: Callable[..., Path]) -> None:
    shown, hidden = written("hush", "shown", 0o644), written(DATABASE, "hidden")
    loaded = load_with_origins(
        environ={"VOICEFORGE_API_KEY_FILE": str(shown), "VOICEFORGE_DATABASE__URL_FILE": str(hidden)}
    )
    assert loaded.open_files == (shown,)


@pytest.mark.parametrize("path", secret_paths(), ids=".".join)
def test_no_complaint_about_any_secret_repeats_it(
    path: tuple[str, ...], written: Callable[..., Path]
) -> None:
    """Values that no secret can have, given in every way there is."""
    bad = "planted-secret \x01://@"
    variable = env_name(path)
    nested = ".".join(path[:-1])
    section = f"[{nested}]\n" if nested else ""
    ways: list[tuple[Path | None, dict[str, str]]] = [
        (None, {variable: bad}),
        (None, {f"{variable}_FILE": str(written(bad, "bad"))}),
        (written(f"{section}{path[-1]} = {json.dumps(bad)}", "value.toml"), {}),
        (written(f"{section}{path[-1]} = [{json.dumps(bad)}]", "list.toml"), {}),
        (written(f'{section}{path[-1]}_file = "{written(bad, "bad")}"', "file.toml"), {}),
    ]
    for config, environ in ways:
        told = ""
        try:
            loaded = load_with_origins(config, environ=environ)
            told = repr(loaded) + "".join(row.value for row in describe(loaded))
        except ConfigurationError as error:
            told = error.message
        assert told
        assert "planted" not in told
