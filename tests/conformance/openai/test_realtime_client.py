"""The unmodified `openai` client's Realtime API, sync and async, against the embedded engine."""

import asyncio
import base64
from dataclasses import replace

import numpy as np
import openai
import pytest
import soundfile
import soxr
from websockets.exceptions import InvalidStatus

from voiceforge.api.app import create_app
from voiceforge.api.http.config import HttpConfig
from voiceforge.infra.enginehost.in_process import InProcessHosts
from voiceforge.infra.modelstore.disk import DiskModelStore
from voiceforge.infra.modelstore.hub import Hub
from voiceforge.services.engine_room import EngineRoom
from voiceforge.services.models import Models
from voiceforge.services.streams import StreamLimits, Streams
from voiceforge.speech.audio.stream_decoder import LocalStreamDecoders
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.fake_engine import FakeEngine, says
from voiceforge.testing.live_server import live_server
from voiceforge.testing.scripted_services import ScriptedTranscriptions, scripted_services

TRANSCRIPTION = "conversation.item.input_audio_transcription"
COMPLETED = f"{TRANSCRIPTION}.completed"
DELTA = f"{TRANSCRIPTION}.delta"


def pcm(path, rate=24_000, *, silence_s=1.0):
    """16-bit, with silence behind it, so that the last turn ends."""
    samples, given = soundfile.read(path, dtype="float32")
    samples = soxr.resample(samples, given, rate)
    return (np.concatenate([samples, np.zeros(int(rate * silence_s), np.float32)]) * 32767).astype("<i2")


def pieces(data, size):
    for at in range(0, len(data), size):
        yield base64.b64encode(data[at : at + size]).decode()


@pytest.fixture(scope="module")
def client(door):
    with openai.OpenAI(base_url=f"{door.url}/v1", api_key=door.key, max_retries=0) as made:
        yield made


@pytest.fixture
async def async_client(door):
    async with openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key=door.key, max_retries=0) as made:
        yield made


def settings(**heard):
    return {"type": "transcription", "audio": {"input": heard}}


def check_turns(events):
    """What every client may rely on; gives the transcripts."""
    assert not [event for event in events if event.type == "error"]
    assert len({event.event_id for event in events}) == len(events)
    transcripts = []
    for completed in (event for event in events if event.type == COMPLETED):
        own = [event for event in events if getattr(event, "item_id", None) == completed.item_id]
        assert "".join(event.delta for event in own if event.type == DELTA) == completed.transcript
        assert completed.usage.type == "duration"
        transcripts.append(completed.transcript)
    return transcripts


async def test_detected_turns_as_they_are_spoken(async_client, two_cities):
    async with async_client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        created = await connection.recv()
        assert created.type == "session.created"
        assert created.session.audio.input.format.rate == 24_000
        await connection.session.update(
            session=settings(
                format={"type": "audio/pcm", "rate": 24_000},
                transcription={"model": "gpt-4o-transcribe", "language": "en"},
                turn_detection={"type": "server_vad", "silence_duration_ms": 300},
            )
        )
        events = [await connection.recv()]
        assert events[0].type == "session.updated"

        async def speak():
            for piece in pieces(pcm(two_cities).tobytes(), 48_000):
                await connection.input_audio_buffer.append(audio=piece)

        speaking = asyncio.create_task(speak())
        async with asyncio.timeout(90):
            async for event in connection:
                events.append(event)
                if event.type == "conversation.item.done" and "degree of" in text_of(events):
                    break
        await speaking
    transcripts = check_turns(events)
    assert len(transcripts) > 2
    types = [event.type for event in events]
    first = types[1 : types.index("conversation.item.done") + 1]
    assert [kind for kind in first if kind != DELTA] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        COMPLETED,
        "conversation.item.done",
    ]
    assert "best of times" in transcripts[0].lower()


def text_of(events):
    return " ".join(event.transcript for event in events if event.type == COMPLETED).lower()


def test_the_sync_client_with_commits(client, beckett):
    with client.realtime.connect(model="whisper-1", extra_query={"intent": "transcription"}) as connection:
        assert connection.recv().type == "session.created"
        connection.session.update(session=settings(turn_detection=None))
        assert connection.recv().type == "session.updated"
        for piece in pieces(pcm(beckett).tobytes(), 48_000):
            connection.input_audio_buffer.append(audio=piece)
        connection.input_audio_buffer.commit()
        events = []
        for event in connection:
            events.append(event)
            if event.type == "conversation.item.done":
                break
    [transcript] = check_turns(events)
    assert "ever tried" in transcript.lower()
    assert "fail better" in transcript.lower()


@pytest.mark.parametrize(("kind", "codec"), [("audio/pcmu", "ULAW"), ("audio/pcma", "ALAW")])
async def test_telephone_audio(async_client, beckett, tmp_path, kind, codec):
    soundfile.write(tmp_path / "call.raw", pcm(beckett, 8_000), 8_000, format="RAW", subtype=codec)
    async with async_client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        await connection.recv()
        await connection.session.update(session=settings(format={"type": kind}, turn_detection=None))
        for piece in pieces((tmp_path / "call.raw").read_bytes(), 8_000):
            await connection.input_audio_buffer.append(audio=piece)
        await connection.input_audio_buffer.commit()
        events = []
        async with asyncio.timeout(60):
            async for event in connection:
                events.append(event)
                if event.type == COMPLETED:
                    break
    assert "ever tried" in check_turns(events)[0].lower()


async def test_silence_says_nothing(async_client):
    async with async_client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        for piece in pieces(bytes(48_000 * 3), 48_000):
            await connection.input_audio_buffer.append(audio=piece)
        await connection.input_audio_buffer.commit()
        events = []
        async with asyncio.timeout(60):
            async for event in connection:
                events.append(event)
                if event.type == COMPLETED:
                    break
    assert check_turns(events) == [""]
    assert not [event for event in events if event.type == "input_audio_buffer.speech_started"]


@pytest.fixture
def deaf(tmp_path):
    """A server whose voice detector hears speech, and whose engine no words in it."""
    metrics = Metrics("test")
    engines = EngineRoom(InProcessHosts(lambda model_id: FakeEngine(says("")), None), metrics=metrics)
    streams = Streams(
        models=Models(
            DiskModelStore(tmp_path / "models", Hub(None), offline=True),
            default="moonshine-tiny-en",
            aliases={},
            loaded=engines,
        ),
        engines=engines,
        aligner=lambda: None,
        decoders=LocalStreamDecoders(),
        metrics=metrics,
        limits=StreamLimits(),
    )
    made = scripted_services(ScriptedTranscriptions(), tmp_path)
    app = create_app(replace(made, streams=streams), HttpConfig(tmp_path, "1.2.3", api_key="key"))
    with live_server(app) as server:
        yield server.url
    engines.close(0)
    streams.close()
    made.engines.close(0)


def test_speech_without_words_is_an_item_without_words(deaf, beckett):
    with (
        openai.OpenAI(base_url=f"{deaf}/v1", api_key="key", max_retries=0) as client,
        client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
    ):
        for piece in pieces(pcm(beckett).tobytes(), 48_000):
            connection.input_audio_buffer.append(audio=piece)
        events = []
        while not events or events[-1].type != "conversation.item.done":
            events.append(connection.recv())
    assert check_turns(events) == [""]
    assert [event.type for event in events if event.type != "session.created"] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        COMPLETED,
        "conversation.item.done",
    ]
    started, stopped = events[1:3]
    assert started.item_id == stopped.item_id
    assert started.audio_start_ms < stopped.audio_end_ms


async def test_client_secrets(async_client, door):
    made = await async_client.realtime.client_secrets.create(
        expires_after={"anchor": "created_at", "seconds": 60},
        session=settings(transcription={"model": "gpt-4o-transcribe"}, turn_detection=None),
    )
    assert made.value.startswith("ek_")
    assert made.session.type == "transcription"
    async with (
        openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key=made.value) as browser,
        browser.realtime.connect() as connection,
    ):
        created = await connection.recv()
        assert created.session.audio.input.turn_detection is None
        assert created.session.audio.input.transcription.model == "gpt-4o-transcribe"


async def test_a_wrong_key(door):
    async with openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key="wrong") as client:
        with pytest.raises((InvalidStatus, openai.APIError)) as caught:
            async with client.realtime.connect():
                pass
        assert "401" in str(caught.value)


async def test_the_client_stays_after_a_fault_of_its_own(async_client):
    async with async_client.realtime.connect() as connection:
        await connection.recv()
        await connection.input_audio_buffer.commit()
        error = await connection.recv()
        assert error.type == "error"
        assert error.error.code == "input_audio_buffer_commit_empty"
        await connection.session.update(session=settings(turn_detection=None))
        assert (await connection.recv()).type == "session.updated"
