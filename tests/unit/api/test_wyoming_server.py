"""The Wyoming server on a socket, its streams scripted, by the protocol's own client where one will do."""

import asyncio
import ipaddress
import json
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from wyoming.asr import Transcribe, Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.info import Describe, Info, SelectProgram
from wyoming.ping import Ping, Pong
from wyoming.vad import VoiceStarted, VoiceStopped

from voiceforge.api.wyoming_server.server import WyomingConfig, WyomingServer
from voiceforge.errors import EngineFailed, ModelNotFound, Overloaded, RevokedCredential, ShuttingDown
from voiceforge.services.access import Scope
from voiceforge.services.authentication import Authentication
from voiceforge.speech.options import RawFormat
from voiceforge.speech.transcript import Language, Segment, Word
from voiceforge.speech.transcript.stream_events import Closed, Final, Interim, SpeechStarted
from voiceforge.testing.log_lines import log_lines
from voiceforge.testing.scripted_services import ScriptedModels
from voiceforge.testing.scripted_streams import ScriptedStreams

HOME_ASSISTANT = {"rate": 16_000, "width": 2, "channels": 1}
SECOND = bytes(32_000)


def words(text):
    return tuple(Word(word, 0.0, 1.0) for word in text.split())


def final(text, start, end, reason):
    segments = (Segment(0, start, end, text, words=words(text)),) if text else ()
    return Final(0, 0, start, end, text, segments, reason, Language("en", 1.0))


def turn_on(stream, verb):
    if verb == "push" and stream.calls.count("push") == 1:
        yield SpeechStarted(0, 0.25)
        yield Interim(0, 0, 0.25, 1.0, "Turn on the", words("Turn on the"), 2)
    if verb == "close":
        yield final("Turn on the lamp.", 0.25, 1.5, "close")
        yield Closed(2.0)


@dataclass
class Streams(ScriptedStreams):
    script: Any = field(default=turn_on)

    def check(self, request):
        if request.model not in (None, "fake", "whisper-1"):
            raise ModelNotFound(f"there is no model {request.model!r}", field="model")
        return "fake"

    async def open(self, request):
        self.check(request)
        return await super().open(request)


@pytest.fixture(autouse=True, name="log_lines")
def kept_log_lines():
    with log_lines() as lines:
        yield lines


@pytest.fixture
def streams():
    return Streams()


@asynccontextmanager
async def serving(streams, authentication=None, **config):
    listener = socket.create_server(("127.0.0.1", 0))
    server = WyomingServer(
        streams,
        ScriptedModels(),
        authentication or Authentication(),
        WyomingConfig(version="1.2.3", **config),
    )
    await server.start(listener)
    port = listener.getsockname()[1]
    try:
        yield server, port
    finally:
        await server.stop(0.0)


@asynccontextmanager
async def talking(port):
    async with AsyncTcpClient("127.0.0.1", port) as client:
        yield client


async def hear(client):
    async with asyncio.timeout(10):
        return await client.read_event()


async def heard_until(client, kind):
    heard = []
    while (event := await hear(client)) is not None:
        heard.append(event)
        if kind is not None and kind.is_type(event.type):
            break
    return heard


async def speak(client, *, seconds=2, stop=True, **wish):
    await client.write_event(Transcribe(**wish).event())
    await client.write_event(AudioStart(**HOME_ASSISTANT).event())
    for _ in range(seconds):
        await client.write_event(AudioChunk(**HOME_ASSISTANT, audio=SECOND).event())
    if stop:
        await client.write_event(AudioStop().event())


async def test_a_command(streams):
    async with serving(streams) as (_, port), talking(port) as client:
        await speak(client, language="en-US", name="whisper-1")
        told = await heard_until(client, TranscriptStop)
    assert [event.type for event in told] == [
        "voice-started",
        "transcript-start",
        "transcript-chunk",
        "voice-stopped",
        "transcript-chunk",
        "transcript",
        "transcript-stop",
    ]
    assert VoiceStarted.from_event(told[0]).timestamp == 250
    assert TranscriptStart.from_event(told[1]) is not None
    assert VoiceStopped.from_event(told[3]).timestamp == 1500
    transcript = Transcript.from_event(told[5])
    assert (transcript.text, transcript.language) == ("Turn on the lamp.", "en")
    chunks = [TranscriptChunk.from_event(event).text for event in told if event.type == "transcript-chunk"]
    assert "".join(chunks) == transcript.text
    [stream] = streams.opened
    assert stream.request.audio == RawFormat("s16le", 16_000, 1)
    assert stream.request.options.language == "en"
    assert bytes(stream.received) == SECOND * 2


async def test_commands_one_after_the_other_on_one_connection(streams):
    async with serving(streams) as (_, port), talking(port) as client:
        for _ in range(2):
            await speak(client)
        for _ in range(2):
            told = await heard_until(client, Transcript)
            assert Transcript.from_event(told[-1]).text == "Turn on the lamp."
    assert len(streams.opened) == 2


async def test_describe_select_and_ping(streams):
    async with serving(streams) as (_, port), talking(port) as client:
        await client.write_event(SelectProgram("voiceforge").event())
        await client.write_event(Describe().event())
        info = Info.from_event(await hear(client))
        await client.write_event(Ping("hello").event())
        assert Pong.from_event(await hear(client)).text == "hello"
    assert [model.name for model in info.asr[0].models] == ["fake", "org/name"]
    assert info.asr[0].installed


async def test_nothing_said_is_answered_too(streams):
    """Home Assistant would wait for ever."""
    async with serving(streams) as (_, port), talking(port) as client:
        await client.write_event(Transcribe().event())
        await client.write_event(AudioStop().event())
        told = await heard_until(client, Transcript)
        assert Transcript.from_event(told[-1]).text == ""
        await client.write_event(AudioChunk(**HOME_ASSISTANT, audio=b"").event())  # no start before it
        await client.write_event(AudioStop().event())
        assert (await heard_until(client, Transcript))[-1].type == "transcript"


async def test_types_nobody_knows_are_overlooked(streams):
    async with serving(streams) as (_, port), talking(port) as client:
        for kind in ("synthesize", "wake-word", "transcript"):
            await client.write_event(Describe().event().__class__(type=kind, data={"x": 1}, payload=b"123"))
        await client.write_event(Ping().event())
        assert Pong.is_type((await hear(client)).type)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (Transcribe(name="nope"), "model_not_found"),
        (SelectProgram("other"), "not_found"),
    ],
)
async def test_trap_25_a_failure_is_told_and_closes_the_socket(streams, what, code):
    async with serving(streams) as (_, port), talking(port) as client:
        await client.write_event(what.event())
        await client.write_event(AudioStart(**HOME_ASSISTANT).event())
        error, *rest = await heard_until(client, None)
        assert Error.from_event(error).code == code
        assert rest == []


async def test_trap_25_an_engine_that_breaks_closes_the_socket_at_once(streams, log_lines):
    streams.script = lambda stream, verb: [EngineFailed("the engine broke")]
    async with serving(streams) as (_, port), talking(port) as client:
        await speak(client, seconds=1, stop=False)
        told = await heard_until(client, None)
        assert Error.from_event(told[-1]).code == "engine_failed"
        assert "abort" in streams.opened[0].calls


async def test_a_defect_of_ours_tells_nothing_of_itself(streams, log_lines):
    streams.script = lambda stream, verb: [ValueError("/secret/path")]
    async with serving(streams) as (_, port), talking(port) as client:
        await speak(client, seconds=1)
        told = await heard_until(client, None)
        assert Error.from_event(told[-1]).code == "internal_error"
        assert "secret" not in Error.from_event(told[-1]).text


async def test_too_many_streams(streams):
    streams.refusal = Overloaded("there are too many streams")
    async with serving(streams) as (_, port), talking(port) as client:
        await client.write_event(AudioStart(**HOME_ASSISTANT).event())
        [error] = await heard_until(client, None)
        assert Error.from_event(error).code == "overloaded"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n",
        b'{"type": "audio-chunk", "payload_length": 50000000}\n',
        b'{"type": "audio-chunk", "payload_length": -5}\n',
        b'{"type": "audio-start", "data": {"rate": 16000, "width": 9, "channels": 1}}\n',
        b'{"type": "audio-chunk"}\n',
        b"x" * 100_000,
    ],
)
async def test_what_is_not_wyoming(streams, sent):
    async with serving(streams) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        async with asyncio.timeout(10):
            line = await reader.readline()
            rest = await reader.read()
        assert json.loads(line)["type"] == "error"
        assert b"text" in rest
        writer.close()


async def test_audio_that_changes_half_way(streams):
    async with serving(streams) as (_, port), talking(port) as client:
        await speak(client, seconds=1, stop=False)
        await client.write_event(AudioChunk(rate=8_000, width=2, channels=1, audio=b"1234").event())
        told = await heard_until(client, None)
        assert Error.from_event(told[-1]).code == "invalid_request"


async def test_a_cut_connection_takes_its_stream_with_it(streams):
    async with serving(streams) as (server, port):
        async with talking(port) as client:
            await speak(client, seconds=1, stop=False)
            await heard_until(client, VoiceStarted)
        await server.stop(0.0)  # waits for what the connection does last
        assert "abort" in streams.opened[0].calls


async def test_who_is_silent_is_sent_away(streams):
    async with serving(streams, idle_s=0.1) as (_, port), talking(port) as client:
        [error] = await heard_until(client, None)
        assert Error.from_event(error).code == "deadline_exceeded"


async def test_who_waits_for_us_is_not(streams):
    release = asyncio.Event()

    class Slow(Streams):
        async def open(self, request):
            stream = await super().open(request)
            events = stream.events

            async def late():
                await release.wait()
                async for event in events():
                    yield event

            stream.events = late
            return stream

    async with serving(Slow(), idle_s=0.05) as (_, port), talking(port) as client:
        await speak(client)
        await asyncio.sleep(0.2)  # several times as long as idleness is borne
        release.set()
        assert (await heard_until(client, Transcript))[-1].type == "transcript"


async def only_talk(port):
    ping = Ping("x" * 200_000).event()
    async with talking(port) as client:
        while True:
            await client.write_event(ping)


async def test_who_never_reads_is_given_up(streams):
    async with serving(streams, send_s=0.1) as (_, port):
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(only_talk(port), 20)


async def test_addresses(streams):
    async with serving(streams, allow=[ipaddress.ip_network("10.0.0.0/8")]) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()
    async with (
        serving(streams, allow=[ipaddress.ip_network("127.0.0.0/8")]) as (_, port),
        talking(port) as client,
    ):
        await client.write_event(Ping().event())
        assert Pong.is_type((await hear(client)).type)


@pytest.mark.parametrize(
    ("networks", "tenant"), [({}, "acme"), ({"10.0.0.0/8": "far"}, "acme"), ({"127.0.0.0/8": "near"}, "near")]
)
async def test_commands_are_of_the_tenant_of_the_listener_or_the_network(streams, networks, tenant):
    tenants = [(ipaddress.ip_network(name), whose) for name, whose in networks.items()]
    async with serving(streams, tenant="acme", tenants=tenants) as (_, port), talking(port) as client:
        await speak(client)
        await heard_until(client, TranscriptStop)
    caller = streams.opened[0].request.caller
    assert (caller.tenant, caller.scopes, caller.address) == (tenant, {Scope.TRANSCRIBE}, "127.0.0.1")


class NobodyKnown(Authentication):
    async def of_tenant(self, tenant, address):
        raise RevokedCredential("the account was disabled")


async def test_commands_of_a_tenant_that_is_shut_out_are_not_heard(streams):
    async with serving(streams, NobodyKnown()) as (_, port), talking(port) as client:
        await speak(client)
        told = Error.from_event((await heard_until(client, None))[-1])
    assert (told.code, streams.opened) == ("revoked_credential", [])


async def test_connections_are_counted(streams):
    async with serving(streams, max_connections=1) as (_, port), talking(port) as first:
        await first.write_event(Ping().event())
        await hear(first)
        async with talking(port) as second:
            [error] = await heard_until(second, None)
            assert Error.from_event(error).code == "overloaded"


async def test_a_server_that_leaves(streams):
    """Who waits for a transcript gets it; who says nothing is left at once."""
    async with serving(streams) as (server, port), talking(port) as idle, talking(port) as busy:
        await idle.write_event(Ping().event())
        await hear(idle)
        await speak(busy, seconds=1, stop=False)
        await heard_until(busy, VoiceStarted)
        stopping = asyncio.create_task(server.stop(10.0))
        assert await heard_until(idle, None) == []
        await busy.write_event(AudioStop().event())
        assert (await heard_until(busy, Transcript))[-1].type == "transcript"
        await busy.disconnect()
        async with asyncio.timeout(10):
            await stopping
        with pytest.raises(ConnectionError):
            await AsyncTcpClient("127.0.0.1", port).connect()


async def test_a_stream_that_ends_because_the_server_leaves(streams):
    streams.script = lambda stream, verb: [ShuttingDown("the server is shutting down")]
    async with serving(streams) as (_, port), talking(port) as client:
        await speak(client, seconds=1, stop=False)
        told = await heard_until(client, None)
        assert Error.from_event(told[-1]).code == "shutting_down"
