"""`/v1/realtime` on a socket, its streams scripted: the handshake, what clients send, what goes wrong.

The clients of pipecat and livekit are frameworks; what of the protocol they rely on is done here by hand.
"""

import asyncio
import base64
import contextlib
import json
from dataclasses import dataclass, field, replace

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from voiceforge.api.app import create_app
from voiceforge.api.http.config import HttpConfig
from voiceforge.errors import EngineFailed, ModelNotFound, Overloaded, ShuttingDown, UnsupportedOption
from voiceforge.speech.options import RawFormat
from voiceforge.speech.transcript import Language, Segment, Word
from voiceforge.speech.transcript.stream_events import Closed, Final, Flushed, Interim, SpeechStarted
from voiceforge.testing.live_server import live_server
from voiceforge.testing.scripted_streams import ScriptedStreams

KEY = "right-key"
TRANSCRIPTION = "conversation.item.input_audio_transcription"
SECOND = base64.b64encode(bytes(48_000)).decode()


def words(text):
    return tuple(Word(word, 0.0, 1.0) for word in text.split())


def final(text, start, end, reason, utterance=0):
    segments = (Segment(0, start, end, text, words=words(text)),)
    return Final(0, utterance, start, end, text, segments, reason, Language("en", 1.0))


def ever_tried(stream, verb):
    """A word with the first push, the end of the utterance with the second."""
    pushes = stream.calls.count("push")
    if verb == "push" and pushes == 1:
        yield SpeechStarted(0, 0.2)
        yield Interim(0, 0, 0.2, 1.0, "Ever tried", words("Ever tried"), 1)
    elif verb == "push" and pushes == 2:
        yield final("Ever tried.", 0.2, 1.2, "silence")
    elif verb == "finalize":
        if pushes == 1:
            yield final("Ever tried.", 0.2, 1.0, "finalize")
        yield Flushed(1.0)
    elif verb == "close":
        yield Closed(1.0)


@dataclass
class Streams(ScriptedStreams):
    """Knows two models, and speaks English only."""

    models: tuple[str, ...] = ("fake", "org/name")
    script: object = field(default=ever_tried)

    def check(self, request):
        if request.model not in (None, "whisper-1", *self.models):
            raise ModelNotFound(f"there is no model {request.model!r}", field="model", choices=self.models)
        if request.options.language not in (None, "en"):
            raise UnsupportedOption("the model speaks English", field="language", choices=("en",))
        return request.model if request.model in self.models else "fake"


@pytest.fixture
def streams():
    return Streams()


@pytest.fixture
def door(services, streams, temp_dir):
    config = HttpConfig(temp_dir, "1.2.3", api_key=KEY)
    with live_server(create_app(replace(services, streams=streams), config)) as server:
        yield server


class Client:
    """Says and hears JSON; every event it hears has an id of its own."""

    def __init__(self, socket):
        self.socket = socket
        self.ids = set()

    async def say(self, kind, **fields):
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def hear(self, kind=None):
        async with asyncio.timeout(10):
            event = json.loads(await self.socket.recv())
        assert event["event_id"] not in self.ids
        self.ids.add(event["event_id"])
        assert kind is None or event["type"] == kind, event
        return event

    async def until(self, kind):
        heard = [await self.hear()]
        while heard[-1]["type"] != kind:
            heard.append(await self.hear())
        return heard

    async def append(self, audio=SECOND):
        await self.say("input_audio_buffer.append", audio=audio)

    async def closed(self):
        with pytest.raises(ConnectionClosed) as caught:
            await self.until("never")
        return caught.value.rcvd


@contextlib.asynccontextmanager
async def talking(door, query="?intent=transcription", *, key=KEY, headers=None, **more):
    headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
    url = f"ws://{door.host}:{door.port}/v1/realtime{query}"
    async with connect(url, additional_headers=headers, max_size=None, **more) as socket:
        yield Client(socket)


async def refused(door, *args, **more):
    with pytest.raises(InvalidStatus) as caught:
        async with talking(door, *args, **more):
            pass
    response = caught.value.response
    return response.status_code, json.loads(response.body)["error"]


def settings(**heard):
    return {"type": "transcription", "audio": {"input": heard}}


@pytest.mark.parametrize("query", ["?intent=transcription", "", "?intent=transcription&model=gpt-realtime"])
async def test_trap_9_no_model_needs_to_be_named(door, streams, query):
    async with talking(door, query) as client:
        session = (await client.hear("session.created"))["session"]
    assert session["id"].startswith("sess_")
    assert session["type"] == "transcription"
    assert session["audio"]["input"]["transcription"]["model"] == "fake"
    assert streams.opened[0].request.audio == RawFormat("s16le", 24_000)


async def test_the_model_of_the_url(door, streams):
    async with talking(door, "?intent=transcription&model=org/name&call_id=7") as client:
        session = (await client.hear("session.created"))["session"]
    assert session["audio"]["input"]["transcription"]["model"] == "org/name"
    assert streams.opened[0].request.model == "org/name"


async def test_trap_22_a_wrong_key_is_401_before_the_upgrade(door):
    for key in (None, "wrong", "ek_made.up"):
        status, error = await refused(door, key=key)
        assert (status, error["code"]) == (401, "invalid_api_key")
        assert error["type"] == "authentication_error"


async def test_what_is_refused_at_the_door_has_a_reason(door, streams):
    status, error = await refused(door, "?model=nope")
    assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
    streams.refusal = Overloaded("too many streams", retry_after_s=3)
    status, error = await refused(door)
    assert (status, error["code"]) == (429, "rate_limit_exceeded")


async def test_trap_21_keys_in_subprotocols(door):
    offered = ["realtime", f"openai-insecure-api-key.{KEY}"]
    async with talking(door, key=None, subprotocols=offered) as client:
        assert client.socket.subprotocol == "realtime"
        await client.hear("session.created")
    status, _ = await refused(door, key=None, subprotocols=["realtime", "openai-insecure-api-key.wrong"])
    assert status == 401


async def test_trap_21_the_beta_by_subprotocol(door):
    offered = ["realtime", f"openai-insecure-api-key.{KEY}", "openai-beta.realtime-v1"]
    async with talking(door, key=None, subprotocols=offered) as client:
        assert client.socket.subprotocol == "realtime"
        assert "input_audio_format" in (await client.hear("session.created"))["session"]


async def test_pipecat(door, streams):
    """Says nothing before session.created; detects speech itself, and commits."""
    async with talking(door) as client:
        await client.hear("session.created")
        await client.say(
            "session.update",
            session=settings(
                format={"type": "audio/pcm", "rate": 24_000},
                transcription={"model": "whisper-1", "language": "en"},
                turn_detection=None,
                noise_reduction={"type": "near_field"},
            ),
        )
        session = (await client.hear("session.updated"))["session"]
        assert session["audio"]["input"]["turn_detection"] is None
        assert streams.opened[0].options.endpointing_ms is None
        await client.append()
        await client.hear(f"{TRANSCRIPTION}.delta")
        await client.say("input_audio_buffer.commit")
        told = await client.until("conversation.item.done")
    assert [event["type"] for event in told] == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        f"{TRANSCRIPTION}.delta",
        f"{TRANSCRIPTION}.completed",
        "conversation.item.done",
    ]
    assert told[3]["transcript"] == "Ever tried."


async def test_livekit(door):
    """Sums deltas until completed; takes any `error` for the end."""
    async with talking(door, "?intent=transcription&model=whisper-1") as client:
        await client.say(
            "session.update",
            session=settings(
                format={"type": "audio/pcm", "rate": 24_000},
                transcription={"model": "whisper-1", "prompt": "", "language": "en"},
                turn_detection={
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 600,
                    "silence_duration_ms": 350,
                },
            ),
        )
        await client.append()
        await client.append()
        told = await client.until("conversation.item.done")
    assert [event["type"] for event in told] == [
        "session.created",
        "session.updated",
        "input_audio_buffer.speech_started",
        f"{TRANSCRIPTION}.delta",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        f"{TRANSCRIPTION}.delta",
        f"{TRANSCRIPTION}.completed",
        "conversation.item.done",
    ]
    summed = "".join(event["delta"] for event in told if event["type"].endswith(".delta"))
    assert summed == told[-2]["transcript"] == "Ever tried."
    assert told[-2]["usage"] == {"type": "duration", "seconds": 1.0}


@pytest.mark.parametrize("by_header", [True, False])
async def test_trap_11_beta_and_ga_on_one_path(door, by_header):
    headers = {"OpenAI-Beta": "realtime=v1"} if by_header else {}
    async with talking(door, headers=headers) as client:
        created = (await client.hear("session.created"))["session"]
        assert ("input_audio_format" in created) == by_header
        await client.say(
            "transcription_session.update",
            session={
                "input_audio_format": "pcm16",
                "input_audio_transcription": {"model": "whisper-1"},
                "turn_detection": {"type": "server_vad", "silence_duration_ms": 400},
            },
        )
        session = (await client.hear("transcription_session.updated"))["session"]
        assert session["input_audio_format"] == "pcm16"
        assert session["turn_detection"]["silence_duration_ms"] == 400
        await client.append()
        await client.append()
        told = await client.until(f"{TRANSCRIPTION}.completed")
        types = [event["type"] for event in told]
        assert "conversation.item.created" in types
        assert "conversation.item.added" not in types


async def test_trap_10_absent_keeps_and_null_clears(door, streams):
    async with talking(door) as client:
        await client.hear("session.created")
        await client.say("session.update", session=settings(turn_detection=None))
        await client.hear("session.updated")
        await client.say("session.update", session=settings(transcription={"language": "en"}))
        session = (await client.hear("session.updated"))["session"]
        assert session["audio"]["input"]["turn_detection"] is None
        assert session["audio"]["input"]["transcription"]["language"] == "en"
    assert streams.opened[0].options.endpointing_ms is None


async def test_trap_13_soft_problems_are_no_errors(door):
    async with talking(door) as client:
        await client.say(
            "session.update",
            session={
                "type": "realtime",
                "instructions": "Be kind.",
                "output_modalities": ["audio"],
                "audio": {"input": {"noise_reduction": {"type": "far_field"}}, "output": {"voice": "marin"}},
                "include": ["item.input_audio_transcription.logprobs"],
            },
        )
        await client.append(audio="")
        await client.say("input_audio_buffer.clear")
        told = await client.until("input_audio_buffer.cleared")
    assert [event["type"] for event in told] == [
        "session.created",
        "session.updated",
        "input_audio_buffer.cleared",
    ]


async def test_faults_are_told_and_the_session_goes_on(door):
    async with talking(door) as client:
        await client.hear("session.created")
        for sent, code in [
            ({"type": "response.create", "event_id": "e1"}, "invalid_value"),
            ({"type": "input_audio_buffer.append", "event_id": "e2"}, "missing_required_parameter"),
            ({"type": "input_audio_buffer.commit", "event_id": "e3"}, "input_audio_buffer_commit_empty"),
            (
                {
                    "type": "session.update",
                    "event_id": "e4",
                    "session": settings(transcription={"model": "nope"}),
                },
                "model_not_found",
            ),
            (
                {
                    "type": "session.update",
                    "event_id": "e5",
                    "session": settings(transcription={"language": "de"}),
                },
                "unsupported_option",
            ),
            (
                {"type": "session.update", "event_id": "e6", "session": settings(format={"type": "mp3"})},
                "invalid_value",
            ),
        ]:
            await client.socket.send(json.dumps(sent))
            error = (await client.hear("error"))["error"]
            assert (error["code"], error["event_id"]) == (code, sent["event_id"])
            assert error["type"] == "invalid_request_error"
            assert error["message"]
        await client.socket.send(b"\0" * 100)
        await client.hear("error")
        await client.append()
        await client.append()
        told = await client.until(f"{TRANSCRIPTION}.completed")
        assert told[-1]["transcript"] == "Ever tried."


async def test_a_client_that_only_errs_is_sent_away(door):
    async with talking(door) as client:
        for _ in range(101):
            await client.socket.send("nonsense")
        assert (await client.closed()).code == 1008


@pytest.mark.parametrize(
    ("wire", "audio", "second"),
    [
        ({"type": "audio/pcmu"}, RawFormat("mulaw", 8_000), 8_000),
        ({"type": "audio/pcma"}, RawFormat("alaw", 8_000), 8_000),
        ({"type": "audio/pcm", "rate": 16_000}, RawFormat("s16le", 16_000), 32_000),
    ],
)
async def test_another_format_is_another_stream_of_the_same_session(door, streams, wire, audio, second):
    async with talking(door) as client:
        await client.hear("session.created")
        await client.say("session.update", session=settings(format=wire, turn_detection=None))
        await client.hear("session.updated")
        await client.append(base64.b64encode(bytes(second)).decode())
        await client.say("input_audio_buffer.commit")
        told = await client.until(f"{TRANSCRIPTION}.completed")
        assert told[-1]["usage"]["seconds"] == 1.0
    first, other = streams.opened
    assert other.request.audio == audio
    assert first.calls == ["close"]
    assert len(other.received) == second


async def test_a_switch_in_the_middle_loses_nothing(door, streams):
    def script(stream, verb):
        number = streams.opened.index(stream)
        if verb == "push":
            yield SpeechStarted(0, 0.1)
        elif verb == "close":
            yield final(f"Part {number}.", 0.1, 1.0, "close")
            yield Closed(1.0)
        elif verb == "finalize":
            yield final(f"Part {number}.", 0.1, 1.0, "finalize")
            yield Flushed(1.0)

    streams.script = script
    async with talking(door) as client:
        await client.say("session.update", session=settings(turn_detection=None))
        await client.append()
        await client.say("session.update", session=settings(transcription={"model": "org/name"}))
        await client.append()
        await client.say("input_audio_buffer.commit")
        told = await client.until("conversation.item.done")
    assert told[-2]["transcript"] == "Part 0. Part 1."
    assert told[-2]["usage"]["seconds"] == 2.0


async def test_a_fault_of_ours_fails_the_item_and_closes(door, streams):
    def script(stream, verb):
        if verb == "push":
            yield SpeechStarted(0, 0.2)
            yield EngineFailed("the engine broke")

    streams.script = script
    async with talking(door) as client:
        await client.append()
        told = await client.until("error")
        assert told[-2]["type"] == f"{TRANSCRIPTION}.failed"
        assert told[-2]["item_id"] == told[-3]["item_id"]
        assert told[-2]["error"]["code"] == told[-1]["error"]["code"] == "engine_failed"
        assert (await client.closed()).code == 1011


async def test_leaving_completes_what_was_said_and_says_come_back(door, streams):
    def script(stream, verb):
        if verb == "push":
            yield SpeechStarted(0, 0.2)
            yield final("Ever tried.", 0.2, 0.9, "close")
            yield ShuttingDown("the server is shutting down")

    streams.script = script
    async with talking(door) as client:
        await client.append()
        told = await client.until("conversation.item.done")
        assert told[-2]["transcript"] == "Ever tried."
        assert (await client.closed()).code == 1012


async def test_a_session_that_is_as_long_as_one_may_be(door, streams):
    def script(stream, verb):
        if verb == "push":
            yield SpeechStarted(0, 0.2)
            yield final("Ever tried.", 0.2, 0.9, "close")
            yield Closed(1.0)

    streams.script = script
    async with talking(door) as client:
        await client.append()
        told = await client.until("conversation.item.done")
        assert told[-2]["transcript"] == "Ever tried."
        assert (await client.closed()).code == 1001


async def test_an_overload_on_the_way_says_try_again_later(door, streams):
    streams.script = lambda stream, verb: [Overloaded("too much is waiting")]
    async with talking(door) as client:
        await client.append()
        assert (await client.closed()).code == 1013


async def test_a_client_that_leaves_takes_its_stream_with_it(door, streams):
    async with talking(door) as client:
        await client.hear("session.created")
        await client.append()
        await client.hear("input_audio_buffer.speech_started")
    # It is another event loop's, so there is nothing to wait for but time.
    for _ in range(1000):
        if "abort" in streams.opened[0].calls:
            break
        await asyncio.sleep(0.01)
    assert "abort" in streams.opened[0].calls


async def test_client_secrets_open_sessions_and_nothing_else(door, streams):
    base = f"http://{door.host}:{door.port}/v1"
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as http:
        reply = await http.post(
            f"{base}/realtime/client_secrets",
            json={
                "expires_after": {"anchor": "created_at", "seconds": 60},
                "session": settings(
                    transcription={"language": "en", "keywords": ["Godot"]}, turn_detection=None
                ),
            },
        )
    made = reply.raise_for_status().json()
    assert made["value"].startswith("ek_")
    assert made["session"]["type"] == "transcription"
    assert made["session"]["audio"]["input"]["turn_detection"] is None
    for way in (
        {"key": made["value"]},
        {"key": None, "subprotocols": ["realtime", f"openai-insecure-api-key.{made['value']}"]},
    ):
        async with talking(door, **way) as client:
            session = (await client.hear("session.created"))["session"]
            assert session["audio"]["input"]["turn_detection"] is None
            assert session["audio"]["input"]["transcription"]["keywords"] == ["Godot"]
    assert streams.opened[-1].request.options.keyterms == ("Godot",)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {made['value']}"}) as http:
        assert (await http.get(f"{base}/models")).status_code == 401
        assert (await http.post(f"{base}/realtime/client_secrets", json={})).status_code == 401


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("client_secrets", {"expires_after": {"seconds": 5}}, 400, "expires_after"),
        ("client_secrets", {"session": settings(format={"type": "mp3"})}, 400, "session.audio.input.format"),
        ("client_secrets", {"session": settings(transcription={"model": "nope"})}, 404, "model"),
        ("transcription_sessions", {"input_audio_format": "mp3"}, 400, "session.input_audio_format"),
        ("transcription_sessions", {"client_secret": 7}, 400, "client_secret"),
    ],
)
async def test_secrets_that_cannot_be_made(door, path, body, status, param):
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as http:
        reply = await http.post(f"http://{door.host}:{door.port}/v1/realtime/{path}", json=body)
    assert reply.status_code == status
    assert reply.json()["error"]["param"] == param


async def test_the_betas_secret(door):
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as http:
        reply = await http.post(
            f"http://{door.host}:{door.port}/v1/realtime/transcription_sessions",
            json={"input_audio_format": "g711_ulaw", "turn_detection": None},
        )
    made = reply.raise_for_status().json()
    assert made["input_audio_format"] == "g711_ulaw"
    assert made["turn_detection"] is None
    async with talking(door, key=made["client_secret"]["value"]) as client:
        session = (await client.hear("session.created"))["session"]
        assert session["audio"]["input"]["format"] == {"type": "audio/pcmu"}


async def test_without_a_key_every_key_will_do(services, streams, temp_dir):
    config = HttpConfig(temp_dir, "1.2.3")
    with live_server(create_app(replace(services, streams=streams), config)) as server:
        for key in (None, "anything", "ek_made.up"):
            async with talking(server, key=key) as client:
                await client.hear("session.created")
