"""Deepgram's own SDK in the three versions that people have, each in a process of its own."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[3]
DRIVER = Path(__file__).parent / "sdk_driver.py"
OLD_SDKS = {5: ROOT / ".make" / "deepgram5", 6: ROOT / ".make" / "deepgram6"}


@dataclass
class Sdk:
    """One version of it. url, key: of the server it is pointed at."""

    major: int
    process: "subprocess.Popen[str]"
    url: str
    key: str

    def ask(self, do: str, **job: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        whole = {"do": do, "url": self.url, "key": self.key, "query": {}, **job}
        print(json.dumps(whole), file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        assert "crashed" not in answer, answer
        return answer

    def transcribe(self, file: Path, **query: Any) -> dict[str, Any]:
        return self.ask("recording", file=str(file), query=query)

    def live(self, *steps: list[Any], job: dict[str, Any] | None = None, **query: Any) -> dict[str, Any]:
        """Booleans go as this version has them: before 6 people wrote them as text."""
        if self.major == 5:
            query = {name: _as_text(value) for name, value in query.items()}
        told: dict[str, Any] = self.ask("live", steps=list(steps), query=query, **(job or {}))
        return told

    @staticmethod
    def audio(data: bytes, size_bytes: int = 8000) -> list[Any]:
        """A step that sends it in frames of so many bytes."""
        return ["audio", base64.b64encode(data).decode(), size_bytes]

    @staticmethod
    def pcm(path: Path) -> bytes:
        """A recording as headerless linear16, at the rate it has."""
        samples, _ = soundfile.read(path, dtype="int16")
        return np.ascontiguousarray(samples).tobytes()


def _as_text(value: Any) -> Any:
    return str(value).lower() if isinstance(value, (bool, int)) else value


@pytest.fixture(scope="session", params=[5, 6, 7])
def sdk_process(request: pytest.FixtureRequest) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    major: int = request.param
    paths = [os.environ.get("PYTHONPATH", "")]
    if major in OLD_SDKS:
        if not OLD_SDKS[major].is_dir():
            pytest.skip("`make test` installs the older SDKs")
        paths.insert(0, str(OLD_SDKS[major]))
    else:
        assert version("deepgram-sdk").startswith("7.")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, str(DRIVER), str(major)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield major, process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def make_sdk(sdk_process) -> Callable[[str, str], Sdk]:
    """Pointed at a server's URL, with a key."""
    return lambda url, key: Sdk(*sdk_process, url, key)


@pytest.fixture
def sdk(make_sdk, door) -> Sdk:
    """Pointed at the server with the embedded engine."""
    return make_sdk(door.url, door.key)


@pytest.fixture
def scripted_sdk(make_sdk, scripted_door) -> Sdk:
    return make_sdk(scripted_door.url, scripted_door.key)
