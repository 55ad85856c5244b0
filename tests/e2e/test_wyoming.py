"""`voiceforge wyoming`, and Wyoming inside `voiceforge serve`, from their start to their end."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import wave
from collections.abc import Callable
from pathlib import Path

import pytest
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import wav_to_chunks
from wyoming.client import AsyncClient

Start = Callable[..., subprocess.Popen[str]]
Completed = subprocess.CompletedProcess[str]


async def said_in(uri: str, recording: Path) -> str:
    async with asyncio.timeout(60), AsyncClient.from_uri(uri) as client:
        await client.write_event(Transcribe(language="en").event())
        with wave.open(str(recording), "rb") as file:
            for event in wav_to_chunks(file, 1024, start_event=True, stop_event=True):
                await client.write_event(event.event())
        while (event := await client.read_event()) is not None:
            if Transcript.is_type(event.type):
                return Transcript.from_event(event).text.lower()
    raise AssertionError("no transcript came")


def test_the_command(start: Start, clips: dict[str, Path], tmp_path: Path) -> None:
    process = start("wyoming", "--port", "0")
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("VoiceForge speaks Wyoming on tcp://127.0.0.1:")
    assert "ever tried" in asyncio.run(said_in(line.split()[4], clips["beckett"]))
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert "Traceback" not in (tmp_path / "stderr-0").read_text()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_beside_http(start: Start, clips: dict[str, Path], tmp_path: Path, workers: str) -> None:
    settings = {"VOICEFORGE_WYOMING__ENABLED": "true", "VOICEFORGE_WYOMING__PORT": "0"}
    process = start("serve", "--port", "0", "--workers", workers, settings=settings)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("VoiceForge listens on http://127.0.0.1:")
    line = process.stdout.readline()
    assert line.startswith("Wyoming on tcp://127.0.0.1:")
    assert "ever tried" in asyncio.run(said_in(line.split()[2], clips["beckett"]))
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert "Traceback" not in (tmp_path / "stderr-0").read_text()


def test_it_is_not_open_to_all_by_accident(voiceforge: Callable[..., Completed]) -> None:
    refused = voiceforge("wyoming", "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2
    assert "set wyoming.allow, or wyoming.insecure = true" in refused.stderr
