"""Secrets planted in every setting that holds one, in a server whose surroundings are all broken: nothing it
or any command says has one of them in it."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from voiceforge.main.settings import env_name, is_secret, setting_fields

Start = Callable[..., subprocess.Popen[str]]
Run = Callable[..., subprocess.CompletedProcess[str]]

MARK = "pLaNtEd"
WEBHOOK_KEY = base64.b64encode(f"{MARK}-of-webhooks-0123456789abcdef".encode()).decode()
SHAPES = {
    "VOICEFORGE_AUTH__FIRST_KEY": "vf_Examples_pLaNtEd1pLaNtEd2pLaNtEd3pLaNtEd43GaQc7",
    "VOICEFORGE_AUTH__LETTER_URL": f"https://127.0.0.1:1/{MARK}",
    "VOICEFORGE_AUTH__LETTER_SECRET": f"whsec_{WEBHOOK_KEY}",
    "VOICEFORGE_LIMITS__URL": f"redis://user:{MARK}@127.0.0.1:1/2",
    "VOICEFORGE_DATABASE__URL": f"postgresql://user:{MARK}@127.0.0.1:1/voiceforge",
    "VOICEFORGE_CACHE__URL": f"redis://user:{MARK}@127.0.0.1:1/0",
    "VOICEFORGE_JOBS__BROKER_URL": f"redis://user:{MARK}@127.0.0.1:1/1",
    "VOICEFORGE_WEBHOOKS__CALLBACK_SECRET": f"whsec_{WEBHOOK_KEY}",
}
SETTINGS = {
    env_name(path): SHAPES.get(env_name(path), f"{MARK}-{'-'.join(path)}-0123456789abcdef0123456789abcdef")
    for path, field in setting_fields()
    if is_secret(field)
}
AROUND = {
    "VOICEFORGE_STORE__URL": "s3://recordings/voiceforge",
    "VOICEFORGE_STORE__ENDPOINT": "http://127.0.0.1:1",
    "VOICEFORGE_STORE__ALLOW_HTTP": "true",
    "VOICEFORGE_STORE__TIMEOUT_S": "0.5",
    "VOICEFORGE_DATABASE__WAIT_S": "0.5",
    "VOICEFORGE_LOG__LEVEL": "debug",
}
NEEDS_TLS = "VOICEFORGE_SERVER__TLS_KEY_PASSWORD"
KEY = {"Authorization": f"Bearer {SETTINGS['VOICEFORGE_API_KEY']}"}


def planted(text: str) -> list[str]:
    """The lines that tell one of them."""
    hidden = (MARK, WEBHOOK_KEY)
    return [line for line in text.splitlines() if any(secret in line for secret in hidden)]


@pytest.fixture
def settings() -> dict[str, str]:
    return {name: value for name, value in SETTINGS.items() if name != NEEDS_TLS} | AROUND


def test_nothing_that_the_server_says_has_a_secret_in_it(
    start: Start, settings: dict[str, str], tmp_path: Path, clips: dict[str, Path]
) -> None:
    process = start("serve", "--port", "0", settings=settings)
    assert process.stdout is not None
    said = process.stdout.readline()
    url = said.split()[3]
    with httpx.Client(base_url=url, headers=KEY, timeout=100) as client:
        for reply in _replies(client, clips["beckett"].read_bytes()):
            said += f"{reply.request.method} {reply.request.url} {reply.headers} {reply.text}\n"
        wrong = {"Authorization": f"Bearer {MARK}", "X-API-Key": MARK, "api-key": MARK}
        assert client.get("/v1/models", headers=wrong).status_code == 401
        client.get("/v1/models", params={"key": MARK})
        client.get(f"/v1/{MARK}")
        # Arguments of a process are everybody's to read.
        for member in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            said += " ".join(member.cmdline()) + "\n"
    process.send_signal(signal.SIGTERM)
    said += process.communicate(timeout=60)[0]
    log = (tmp_path / "stderr-0").read_text()
    assert "no database for jobs" in log
    assert planted(said) == []
    assert planted(log) == []


def _replies(client: httpx.Client, audio: bytes) -> Iterator[httpx.Response]:
    first = client.post("/v1/transcriptions", content=audio)
    assert first.status_code == 200, first.text
    yield first
    yield client.post("/v1/transcriptions", content=audio)
    stored = client.post("/v1/transcriptions", params={"mode": "async"}, content=audio)
    assert stored.status_code == 503, stored.text
    yield stored
    yield client.get("/v1/transcriptions")
    yield client.get("/v1/transcriptions/none")
    yield client.post("/v1/webhooks", json={"url": "https://receiver.example/hook", "events": ["*"]})
    yield client.post("/v1/uploads", headers={"Tus-Resumable": "1.0.0", "Upload-Length": "10"})
    for path in ("/", "/health", "/health/ready", "/stats", "/metrics", "/openapi.json", "/asyncapi.json"):
        yield client.get(path)
    yield client.post("/v1/transcriptions", json={"url": f"https://user:{'x'}@127.0.0.1/a.wav"})


def test_nothing_that_a_worker_says_has_a_secret_in_it(
    start: Start, settings: dict[str, str], tmp_path: Path
) -> None:
    process = start("worker", settings=settings)
    log = tmp_path / "stderr-0"
    deadline = time.monotonic() + 60
    while not all(event in log.read_text() for event in ("no database for jobs", "broker out of reach")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert planted(said + log.read_text()) == []


@pytest.mark.parametrize(
    "command",
    [
        ["config", "show"],
        ["config", "show", "--json"],
        ["doctor"],
        ["db", "check"],
        ["db", "upgrade"],
        ["jobs", "list"],
    ],
    ids=" ".join,
)
def test_nothing_that_a_command_says_has_a_secret_in_it(
    voiceforge: Run, settings: dict[str, str], command: list[str]
) -> None:
    if command == ["config", "show"]:
        settings = settings | {NEEDS_TLS: SETTINGS[NEEDS_TLS], "VOICEFORGE_SERVER__TLS_CERTIFICATE": "x"}
    ended = voiceforge(*command, settings=settings)
    assert ended.stdout + ended.stderr
    assert planted(ended.stdout + ended.stderr) == []
    if command == ["config", "show"]:
        assert ended.stdout.count("********") == len(SETTINGS)
    if command == ["config", "show", "--json"]:
        shown = json.loads(ended.stdout)
        assert shown["api_key"]["value"] == "********"
