"""The protocol's own, unmodified client against the embedded engine, as Home Assistant uses it."""

import asyncio
import socket
import wave
from contextlib import asynccontextmanager

import numpy as np
import pytest
import soundfile
import soxr
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop, wav_to_chunks
from wyoming.client import AsyncClient
from wyoming.error import Error
from wyoming.info import Describe, Info

from voiceforge.api.wyoming_server.server import WyomingConfig, WyomingServer
from voiceforge.main.build import build
from voiceforge.main.settings import Settings
from voiceforge.main.settings_recognition import ModelSettings
from voiceforge.main.settings_streams import StreamSettings
from voiceforge.services.authentication import Authentication


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """Nothing is loaded yet."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        models=ModelSettings(offline=True),
        streams=StreamSettings(max_lag_s=120),  # whatever else this machine does
    )
    services = build(settings, version="1.2.3", live=True)
    yield services
    services.engines.close(grace_s=5)
    services.streams.close()
    services.transcriptions.close()


@asynccontextmanager
async def serving(house):
    listener = socket.create_server(("127.0.0.1", 0))
    server = WyomingServer(house.streams, house.models, Authentication(), WyomingConfig(version="1.2.3"))
    await server.start(listener)
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await server.stop(0.0)


@asynccontextmanager
async def home_assistant(house):
    async with serving(house) as uri, AsyncClient.from_uri(uri) as client:
        yield client


async def transcript_of(client):
    """Reads as Home Assistant does: overlooks all but a transcript, until the connection ends."""
    async with asyncio.timeout(60):
        while (event := await client.read_event()) is not None:
            if Transcript.is_type(event.type):
                return Transcript.from_event(event)
    return None


async def test_trap_26_info_within_a_second_while_the_model_loads(house):
    """The first test: the engine is not there yet, and a command already waits for it."""
    async with (
        serving(house) as uri,
        AsyncClient.from_uri(uri) as command,
        AsyncClient.from_uri(uri) as asking,
    ):
        await command.write_event(AudioStart(rate=16_000, width=2, channels=1).event())
        async with asyncio.timeout(1 if not house.engines.loaded() else 10):
            await asking.write_event(Describe().event())
            info = Info.from_event(await asking.read_event())
    [program] = info.asr
    assert program.installed
    assert program.models[0].name == "moonshine-tiny-en"
    assert program.models[0].languages == ["en"]


async def test_a_command_of_home_assistant(house, beckett):
    """One connection, 16 kHz, 16 bits, mono, in its pieces of 10 ms to 1 s."""
    async with home_assistant(house) as client:
        await client.write_event(Transcribe(language="en").event())
        with wave.open(str(beckett), "rb") as file:
            for event in wav_to_chunks(file, 1024, start_event=True, stop_event=True):
                await client.write_event(event.event())
        said = await transcript_of(client)
    assert "ever tried" in said.text.lower()
    assert "fail better" in said.text.lower()
    assert said.language == "en"


@pytest.mark.parametrize(
    ("rate", "width", "channels"), [(44_100, 2, 2), (8_000, 1, 1), (48_000, 4, 1), (22_050, 3, 2)]
)
async def test_other_audio(house, beckett, rate, width, channels):
    samples, given = soundfile.read(beckett, dtype="float64")
    samples = np.clip(soxr.resample(samples, given, rate), -1, 1)
    whole = (samples * (2 ** (8 * width - 1) - 1)).astype("<i4")
    mono = whole[:, None].view(np.uint8).reshape(len(whole), 4)[:, :width]
    audio = np.repeat(mono[:, None, :], channels, axis=1).tobytes()
    async with home_assistant(house) as client:
        shape = {"rate": rate, "width": width, "channels": channels}
        await client.write_event(Transcribe().event())
        await client.write_event(AudioStart(**shape).event())
        for at in range(0, len(audio), 5_000):
            await client.write_event(AudioChunk(**shape, audio=audio[at : at + 5_000]).event())
        await client.write_event(AudioStop().event())
        said = await transcript_of(client)
    assert "failed" in said.text.lower()


async def test_silence(house):
    async with home_assistant(house) as client:
        shape = {"rate": 16_000, "width": 2, "channels": 1}
        await client.write_event(AudioStart(**shape).event())
        await client.write_event(AudioChunk(**shape, audio=bytes(64_000)).event())
        await client.write_event(AudioStop().event())
        assert (await transcript_of(client)).text == ""


@pytest.mark.parametrize("wish", [Transcribe(name="no-such-model"), Transcribe(language="de")])
async def test_trap_25_what_cannot_be_done_ends_the_connection(house, wish):
    async with home_assistant(house) as client:
        await client.write_event(wish.event())
        await client.write_event(AudioStart(rate=16_000, width=2, channels=1).event())
        async with asyncio.timeout(30):
            error = Error.from_event(await client.read_event())
            assert error.code in ("model_not_found", "unsupported_option")
            assert await client.read_event() is None
