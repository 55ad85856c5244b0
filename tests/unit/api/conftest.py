"""The HTTP side around scripted services: in process for most tests, on a socket for those about wires."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from voiceforge.api.app import create_app
from voiceforge.api.http.config import HttpConfig
from voiceforge.services.container import Services
from voiceforge.testing.live_server import LiveServer, live_server
from voiceforge.testing.log_lines import log_lines
from voiceforge.testing.scripted_services import ScriptedTranscriptions, scripted_services

KEY = "right-key"


@pytest.fixture(autouse=True, name="log_lines")
def kept_log_lines() -> Iterator[list[dict[str, Any]]]:
    """Kept, not printed: printing tracebacks for people costs seconds."""
    with log_lines() as lines:
        yield lines


@pytest.fixture
def temp_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return folder


@pytest.fixture
def scripted() -> ScriptedTranscriptions:
    return ScriptedTranscriptions()


@pytest.fixture
def services(scripted: ScriptedTranscriptions, tmp_path: Path) -> Iterator[Services]:
    made = scripted_services(scripted, tmp_path)
    yield made
    made.engines.close(1.0)


@pytest.fixture
def make_app(services: Services, temp_dir: Path) -> Callable[..., FastAPI]:
    def make(**config: Any) -> FastAPI:
        return create_app(services, HttpConfig(temp_dir=temp_dir, version="1.2.3", **config))

    return make


@pytest.fixture
async def client(make_app: Callable[..., FastAPI]) -> AsyncIterator[httpx.AsyncClient]:
    """Without a key set."""
    transport = httpx.ASGITransport(make_app(max_upload_bytes=1_000_000))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as made:
        yield made


@pytest.fixture
def serve(make_app: Callable[..., FastAPI]) -> Iterator[Callable[..., LiveServer]]:
    with ExitStack() as stack:
        yield lambda **config: stack.enter_context(live_server(make_app(**config)))
