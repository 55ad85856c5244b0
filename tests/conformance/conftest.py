"""Two servers on real sockets: the one people run, with the embedded engine; and one whose work is scripted,
for what a healthy engine never does."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pytest

from voiceforge.api.app import create_app
from voiceforge.api.http.config import HttpConfig
from voiceforge.main.build import build, keep_audio_host
from voiceforge.main.http_server import http_config
from voiceforge.main.settings import Settings
from voiceforge.main.settings_recognition import ModelSettings
from voiceforge.main.settings_streams import StreamSettings
from voiceforge.testing.live_server import live_server
from voiceforge.testing.scripted_services import ScriptedTranscriptions, scripted_services

KEY = "test-key"
ASSETS = Path(str(files("moonshine_voice") / "assets"))


@dataclass(frozen=True)
class Door:
    url: str
    key: str
    temp_dir: Path


@pytest.fixture(scope="session")
def whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper of true shape and made-up words, for what the embedded engine cannot do."""
    pytest.importorskip("faster_whisper")
    from voiceforge.testing.tiny_whisper import build_tiny_whisper

    folder = tmp_path_factory.mktemp("models") / "tiny-whisper"
    build_tiny_whisper(folder, multilingual=True)
    return folder


@pytest.fixture(scope="session")
def door(tmp_path_factory: pytest.TempPathFactory, whisper_folder: Path) -> Iterator[Door]:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        api_key=KEY,
        models=ModelSettings(offline=True, aliases={"tiny-whisper": str(whisper_folder)}),
        streams=StreamSettings(max_lag_s=120),  # whatever else this machine does
    )
    config = http_config(settings, "1.2.3")
    config.temp_dir.mkdir(parents=True, exist_ok=True)
    audio = keep_audio_host()
    services = build(settings, version="1.2.3", audio_host=audio.address, live=True)
    services.transcriptions.preload(services.models.require_installed(None))
    with live_server(create_app(services, config)) as server:
        yield Door(server.url, KEY, config.temp_dir)
    assert services.streams is not None
    services.streams.close()
    services.engines.close(grace_s=5)
    services.transcriptions.close()
    audio.close()


@pytest.fixture
def scripted() -> ScriptedTranscriptions:
    return ScriptedTranscriptions()


@pytest.fixture
def scripted_door(scripted: ScriptedTranscriptions, tmp_path: Path) -> Iterator[Door]:
    services = scripted_services(scripted, tmp_path)
    temp_dir = tmp_path / "uploads"
    temp_dir.mkdir()
    with live_server(create_app(services, HttpConfig(temp_dir, "1.2.3", api_key=KEY))) as server:
        yield Door(server.url, KEY, temp_dir)
    services.engines.close(1.0)


@pytest.fixture(scope="session")
def beckett() -> Path:
    """10 s, 16 kHz: "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better." """
    return ASSETS / "beckett.wav"


@pytest.fixture(scope="session")
def two_cities() -> Path:
    """44 s, 48 kHz: the opening of A Tale of Two Cities."""
    return ASSETS / "two_cities.wav"
