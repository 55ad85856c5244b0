"""The live door's protocol around a scripted stream: what unmodified SDKs make of it, and what others get."""

import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from voiceforge.api.app import create_app
from voiceforge.api.http.config import HttpConfig
from voiceforge.errors import (
    DeadlineExceeded,
    EngineFailed,
    ModelNotFound,
    Overloaded,
    ShuttingDown,
    UnreadableAudio,
)
from voiceforge.speech.transcript import Language, Segment, Word
from voiceforge.speech.transcript.stream_events import (
    Closed,
    Final,
    Flushed,
    Interim,
    SpeechStarted,
    UtteranceEnd,
)
from voiceforge.testing.live_server import live_server
from voiceforge.testing.scripted_services import ScriptedTranscriptions, scripted_services
from voiceforge.testing.scripted_streams import ScriptedStreams

KEY = "test-key"
LINEAR = {"encoding": "linear16", "sample_rate": 16_000}
WORDS = (Word("Ever", 0.1, 0.4, 0.9), Word("tried.", 0.4, 0.9, 0.8))


def final(reason="silence", words=WORDS):
    segments = (Segment(0, 0.1, 0.9, "Ever tried.", words=words),) if words else ()
    return Final(0, 0, 0.1, 0.9, "Ever tried." if words else "", segments, reason, Language("en", 1.0))


def one_utterance(stream, verb):
    """Is over with the first frame."""
    if verb == "push" and stream.calls.count("push") == 1:
        yield SpeechStarted(0, 0.1)
        yield Interim(0, 0, 0.1, 0.5, "Ever", WORDS[:1], 1)
        yield final()
        yield UtteranceEnd(0, 0.9)
    if verb == "finalize":
        yield Flushed(stream.duration_s)
    if verb == "close":
        yield Closed(stream.duration_s)


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[str, ScriptedStreams]]:
    folder, streams = tmp_path_factory.mktemp("served"), ScriptedStreams()
    services = replace(scripted_services(ScriptedTranscriptions(), folder), streams=streams)
    with live_server(create_app(services, HttpConfig(folder, "1.2.3", api_key=KEY))) as server:
        yield server.url, streams
    services.engines.close(1.0)


@pytest.fixture
def url(served) -> str:
    return served[0]


@pytest.fixture(autouse=True)
def streams(served) -> ScriptedStreams:
    """As new for every test."""
    shared = served[1]
    shared.script, shared.refusal = one_utterance, None
    shared.opened.clear()
    return shared


@pytest.fixture
def live_sdk(make_sdk, url):
    return make_sdk(url, KEY)


def opened(url, query="", *, subprotocols=None, **headers):
    """A plain client, such as livekit's."""
    if subprotocols is None:
        headers.setdefault("Authorization", f"Token {KEY}")
    return connect(
        f"{url.replace('http', 'ws', 1)}/v1/listen{query}",
        additional_headers=headers,
        subprotocols=subprotocols,
    )


def read_all(socket):
    """Every message until the other side closes; and how it did."""
    made = []
    try:
        while True:
            made.append(json.loads(socket.recv(timeout=20)))
    except ConnectionClosed as closed:
        return made, closed.rcvd.code, closed.rcvd.reason


def test_every_kind_of_message_is_read_by_every_sdk(live_sdk):
    made = live_sdk.live(
        live_sdk.audio(bytes(3200)),
        ["await", {"type": "UtteranceEnd"}],
        ["CloseStream"],
        ["end"],
        model="fake",
        interim_results=True,
        vad_events=True,
        utterance_end_ms=1000,
        punctuate=True,
        **LINEAR,
    )
    assert made["errors"] == []
    assert (made["code"], made["reason"]) == (1000, "")
    kinds = [one["class"].replace("ListenV1", "").removesuffix("Event") for one in made["told"]]
    assert kinds == ["SpeechStarted", "Results", "Results", "UtteranceEnd", "Metadata"]
    interim, frozen = made["told"][1:3]
    assert (interim["is_final"], frozen["is_final"], frozen["speech_final"]) == (False, True, True)
    assert interim["start"] == frozen["start"]
    assert frozen["channel"]["alternatives"][0]["transcript"] == "Ever tried."
    assert frozen["metadata"]["model_uuid"]
    assert made["told"][-1]["duration"] == 0.1


def test_the_async_clients(live_sdk):
    query = {"model": "nova-3", "encoding": "linear16", "sample_rate": "16000", "punctuate": "true"}
    made = live_sdk.ask("live_async", query=query, audio=base64.b64encode(bytes(3200)).decode())
    assert made["errors"] == []
    kinds = [one["type"] for one in made["told"]]
    assert kinds == ["Results", "Results", "UtteranceEnd", "Results", "Metadata"]
    assert made["told"][3]["from_finalize"]


def test_booleans_and_lists_arrive_as_each_version_writes_them(live_sdk, streams):
    live_sdk.live(
        ["CloseStream"],
        ["end"],
        model="nova-3",
        interim_results=True,
        smart_format=False,
        keyterm=["Beckett", "Godot"] if live_sdk.major >= 6 else "Beckett",
        endpointing=500,
        **LINEAR,
    )
    [stream] = streams.opened
    assert stream.options.interim
    assert stream.options.endpointing_ms == 500
    assert stream.options.keyterms == (("Beckett", "Godot") if live_sdk.major >= 6 else ("Beckett",))
    assert stream.request.model == "nova-3"


@pytest.mark.parametrize("key_as", ["api_key", "access_token"])
def test_401_comes_before_the_upgrade(live_sdk, streams, key_as):
    made = live_sdk.ask("live", key="wrong", key_as=key_as, steps=[], query={"model": "nova-3"})
    assert made == {"status": 401}
    assert streams.opened == []


def test_access_tokens_come_as_bearer_in_lower_case(live_sdk):
    made = live_sdk.live(["CloseStream"], ["end"], model="nova-3", job={"key_as": "access_token"})
    assert made["code"] == 1000


def test_finalize_with_nothing_buffered_is_answered(live_sdk):
    made = live_sdk.live(
        ["Finalize"], ["await", {"from_finalize": True}], ["CloseStream"], ["end"], model="nova-3", **LINEAR
    )
    [empty, _] = made["told"]
    assert (empty["is_final"], empty["speech_final"], empty["from_finalize"]) == (True, False, True)
    assert empty["channel"]["alternatives"][0]["transcript"] == ""


def test_audio_after_finalize_is_heard(live_sdk, streams):
    made = live_sdk.live(
        ["Finalize"],
        ["await", {"from_finalize": True}],
        live_sdk.audio(bytes(3200)),
        ["await", {"speech_final": True}],
        ["CloseStream"],
        ["end"],
        model="nova-3",
        **LINEAR,
    )
    assert made["told"][-1]["type"] == "Metadata"
    assert len(streams.opened[0].received) == 3200


def test_close_stream_twice(live_sdk, streams):
    made = live_sdk.live(["CloseStream"], ["CloseStream"], ["end"], model="nova-3")
    assert made["code"] == 1000
    assert [one["type"] for one in made["told"]] == ["Metadata"]


def test_keep_alive_keeps_alive(live_sdk, streams):
    made = live_sdk.live(["KeepAlive"], ["KeepAlive"], ["CloseStream"], ["end"], model="nova-3")
    assert made["code"] == 1000
    assert streams.opened[0].calls[:3] == ["keep_alive", "keep_alive", "close"]
    assert streams.opened[0].request.idle_s == 10.0


@pytest.mark.parametrize("text", ["not json", '{"type": "Something"}', "[1]"])
def test_nothing_but_known_types_goes_to_old_sdks(live_sdk, text):
    made = live_sdk.live(["raw", text], ["CloseStream"], ["end"], model="nova-3")
    assert made["errors"] == []
    kinds = [one["type"] for one in made["told"]]
    assert kinds == (["Error", "Metadata"] if live_sdk.major >= 7 else ["Metadata"])
    if live_sdk.major >= 7:
        assert (made["told"][0]["variant"], made["told"][0]["message"]) == ("SchemaError", text)


def test_configure_is_refused_where_the_model_takes_no_keyterms(live_sdk, streams):
    if live_sdk.major < 7:
        pytest.skip("these versions know no Configure")
    made = live_sdk.live(
        ["configure", {"keyterms": ["Beckett"]}],
        ["configure", {"features": {"numerals": True}}],
        ["configure", {"features": {"numerals": False}}],
        ["CloseStream"],
        ["end"],
        model="nova-3",
    )
    assert [one.get("code") for one in made["told"]] == [
        "CONFIGURE_KEYTERMS_NOT_SUPPORTED",
        "CONFIGURE_INTERNAL_ERROR",
        None,
        None,
    ]
    assert [one["class"] for one in made["told"]][2:] == ["ListenV1ConfigureSuccess", "ListenV1Metadata"]
    assert "configure" not in streams.opened[0].calls


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (UnreadableAudio("no"), 1008, "DATA-0000"),
        (DeadlineExceeded("nothing came"), 1011, "NET-0001"),
        (EngineFailed("broken"), 1011, "NET-0000"),
    ],
)
def test_failures_close_the_socket_with_deepgrams_codes(live_sdk, streams, error, code, name):
    def breaks(stream, verb):
        yield final()
        yield error

    streams.script = breaks
    made = live_sdk.live(live_sdk.audio(bytes(320)), ["end"], model="nova-3", **LINEAR)
    assert [one["type"] for one in made["told"]] == ["Results"]
    assert made["code"] == code
    assert made["reason"].startswith(name)


def test_a_server_that_leaves_says_what_it_heard_and_closes_with_1012(url, streams):
    def leaves(stream, verb):
        yield final("close")
        yield ShuttingDown("the server is shutting down")

    streams.script = leaves
    with opened(url) as socket:
        socket.send(bytes(320))
        made, code, _ = read_all(socket)
    assert [one["type"] for one in made] == ["Results", "Metadata"]
    assert code == 1012


@pytest.mark.parametrize(
    ("refusal", "status", "err_code"),
    [
        (Overloaded("full", retry_after_s=3), 429, "TOO_MANY_REQUESTS"),
        (ModelNotFound("there is no model"), 400, "Bad Request"),
    ],
)
def test_what_cannot_be_is_refused_before_the_upgrade(url, streams, refusal, status, err_code):
    streams.refusal = refusal
    with pytest.raises(InvalidStatus) as caught:
        opened(url)
    assert caught.value.response.status_code == status
    assert json.loads(caught.value.response.body)["err_code"] == err_code
    assert caught.value.response.headers["dg-request-id"]
    assert caught.value.response.headers["dg-error"]


@pytest.mark.parametrize("query", ["?diarize=true", "?encoding=linear16", "?encoding=g729", "?endpointing=x"])
def test_bad_queries_are_400(url, streams, query):
    with pytest.raises(InvalidStatus) as caught:
        opened(url, query)
    assert caught.value.response.status_code == 400
    assert streams.opened == []


@pytest.mark.parametrize("scheme", ["token", "bearer"])
def test_subprotocols_carry_the_key_and_are_echoed(url, scheme):
    more = ["x-deepgram-session-id", "abc"]  # as the JavaScript SDK appends
    with opened(url, subprotocols=[scheme, KEY, *more]) as socket:
        assert socket.subprotocol == scheme
        socket.send('{"type": "CloseStream"}')
        _, code, _ = read_all(socket)
    assert code == 1000


def test_a_wrong_key_in_subprotocols_is_401(url):
    with pytest.raises(InvalidStatus) as caught:
        opened(url, subprotocols=["token", "wrong"])
    assert caught.value.response.status_code == 401


def test_empty_frames_are_ignored(url, streams):
    with opened(url, "?encoding=linear16&sample_rate=16000") as socket:
        socket.send(b"")
        socket.send(bytes(3200))
        socket.send(b"")
        socket.send('{"type": "CloseStream"}')
        made, code, _ = read_all(socket)
    assert code == 1000
    assert made[-1]["type"] == "Metadata"
    assert len(streams.opened[0].received) == 3200


def test_audio_after_close_stream_is_ignored(url, streams):
    with opened(url) as socket:
        socket.send('{"type": "CloseStream"}')
        with suppress(ConnectionClosed):  # the server may be quicker
            socket.send(bytes(3200))
            socket.send('{"type": "Finalize"}')
        _, code, _ = read_all(socket)
    assert code == 1000
    assert len(streams.opened[0].received) == 0


def test_a_cut_without_a_close_ends_the_stream(url, streams):
    with suppress(ConnectionClosed), opened(url) as socket:
        socket.send(bytes(3200))
        socket.recv(timeout=20)
        socket.socket.close()
    with opened(url) as other:  # the server is well
        other.send('{"type": "CloseStream"}')
        read_all(other)
    assert "abort" in streams.opened[0].calls


def test_livekits_stream(url, streams):
    """What its plugin sends, and which keys it reads without asking whether they are there."""
    query = (
        "?model=fake&punctuate=true&smart_format=false&no_delay=true&interim_results=true&encoding=linear16"
        "&vad_events=true&sample_rate=16000&channels=1&endpointing=25&filler_words=true"
        "&profanity_filter=false&numerals=false&mip_opt_out=false&language=en-US"
    )
    with opened(url, query) as socket:
        socket.send('{"type": "KeepAlive"}')
        socket.send(bytes(1600))
        socket.send('{"type": "Finalize"}')
        socket.send('{"type": "CloseStream"}')
        made, code, _ = read_all(socket)
    assert code == 1000
    for one in made:
        if one["type"] == "Results":
            assert one["metadata"]["request_id"]
            assert isinstance(one["is_final"], bool)
            assert isinstance(one["speech_final"], bool)
            for alternative in one["channel"]["alternatives"]:
                assert isinstance(alternative["confidence"], float)
                assert all({"start", "end", "word"} <= set(word) for word in alternative["words"])
    assert streams.opened[0].options.endpointing_ms == 100


def test_pipecats_stream(live_sdk):
    """It asks for a filter by itself, and waits for `from_finalize` when its own detector hears the end."""
    if live_sdk.major < 6:
        pytest.skip("it brings a newer SDK")
    made = live_sdk.live(
        live_sdk.audio(bytes(1600)),
        ["Finalize"],
        ["await", {"from_finalize": True}],
        ["KeepAlive"],
        ["CloseStream"],
        ["end"],
        model="nova-3-general",
        channels="1",
        interim_results="true",
        smart_format="false",
        punctuate="true",
        profanity_filter="true",
        language="en",
        encoding="linear16",
        sample_rate="16000",
    )
    assert made["code"] == 1000
    assert made["told"][-1]["warnings"][0]["parameter"] == "profanity_filter"


def test_any_text_and_bytes_leave_the_server_well(url, streams):
    with opened(url) as socket:
        for frame in ["", "{", "null", '{"type": 1}', "é" * 1000, b"\x00", b"\xff" * 70_000]:
            socket.send(frame)
        socket.send('{"type": "CloseStream"}')
        _, code, _ = read_all(socket)
    assert code == 1000
    assert len(streams.opened[0].received) == 70_001


def test_silence_is_not_speech(url, streams):
    streams.script = lambda stream, verb: [Flushed(0.1), Closed(0.1)] if verb == "close" else []
    with opened(url) as socket:
        socket.send(bytes(3200))
        socket.send('{"type": "CloseStream"}')
        made, _, _ = read_all(socket)
    assert not any(one.get("speech_final") for one in made)
