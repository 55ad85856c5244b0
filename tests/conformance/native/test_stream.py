"""`/v1/stream` over a real socket, by a plain WebSocket client."""

from __future__ import annotations

import contextlib
import io
import json
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest
from pydantic import BaseModel
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from voiceforge.api.native.stream_schemas import CLIENT_MESSAGES, SERVER_MESSAGES
from voiceforge.speech.training.evaluation import Scorer

FRAME = 3_200  # 100 ms
MODELS: dict[str, type[BaseModel]] = {
    model.model_json_schema()["properties"]["type"]["const"]: model for model in SERVER_MESSAGES
}
Open = Callable[..., ClientConnection]


@pytest.fixture
def dial(door) -> Iterator[Open]:
    sockets = contextlib.ExitStack()

    def opened(key: str | None = door.key, **query: Any) -> ClientConnection:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = f"{door.url.replace('http', 'ws', 1)}/v1/stream?{urlencode(query, doseq=True)}"
        return sockets.enter_context(
            connect(url, additional_headers=headers, max_size=None, compression=None)
        )

    with sockets:
        yield opened


def pcm(path: Path) -> bytes:
    with wave.open(str(path)) as file:
        return file.readframes(file.getnframes())


def told(socket: ClientConnection, until: str = "closed") -> list[dict[str, Any]]:
    """Everything up to and with the first message of that type; each is as it is documented."""
    found = []
    while True:
        message = json.loads(socket.recv(timeout=60))
        MODELS[message["type"]].model_validate(message)
        found.append(message)
        if message["type"] == until:
            return found


def send(socket: ClientConnection, audio: bytes, frame: int = FRAME) -> None:
    for first in range(0, len(audio), frame):
        socket.send(audio[first : first + frame])


def say(socket: ClientConnection, **message: Any) -> None:
    socket.send(json.dumps(message))


def text_of(messages: list[dict[str, Any]]) -> str:
    return " ".join(message["text"] for message in messages if message["type"] == "final" and message["text"])


def file_text(door, path: Path) -> str:
    reply = httpx.post(
        f"{door.url}/v1/transcriptions",
        content=path.read_bytes(),
        headers={"Authorization": f"Bearer {door.key}", "Content-Type": "audio/wav"},
        timeout=60,
    )
    return str(reply.json()["text"])


def wer(reference: str, heard: str) -> float:
    rate = Scorer().score(reference, heard, "en").words.rate
    assert rate is not None
    return rate


def test_a_whole_stream(door, dial, beckett) -> None:
    socket = dial(utterance_end_ms=500)
    audio = pcm(beckett)
    send(socket, audio)
    send(socket, bytes(FRAME) * 10)
    say(socket, type="close")
    messages = told(socket)
    assert messages[0]["type"] == "ready"
    assert not messages[0]["resumed"]
    assert wer(file_text(door, beckett), text_of(messages)) <= 0.1
    numbers = [message["seq"] for message in messages if "seq" in message]
    assert numbers == sorted(set(numbers))
    kinds = [message["type"] for message in messages]
    for kind in ("speech_started", "final", "utterance_end"):
        assert kind in kinds
    assert messages[-1]["duration"] == pytest.approx(len(audio) / 32_000 + 1.0, abs=0.01)
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1000


def test_finals_do_not_overlap_and_their_words_lie_in_them(dial, two_cities) -> None:
    socket = dial(encoding="auto", interim="false")
    send(socket, two_cities.read_bytes(), 40_000)
    say(socket, type="close")
    messages = told(socket)
    finals = [message for message in messages if message["type"] == "final"]
    assert len(finals) >= 4
    end = 0.0
    for number, final in enumerate(finals):
        assert final["utterance"] == number
        assert final["start"] >= end
        end = final["end"]
        words = [word for segment in final["segments"] for word in segment["words"]]
        assert words
        assert all(final["start"] - 0.3 <= word["start"] <= word["end"] <= end + 0.3 for word in words)
    assert not [message for message in messages if message["type"] == "interim"]


def test_stable_words_never_change(dial, beckett) -> None:
    """Spoken four times as fast as it was, so that there is time for interims."""
    socket = dial(interim_every_ms=200, endpointing_ms=1_000)
    audio = pcm(beckett)
    for first in range(0, len(audio), FRAME):
        socket.send(audio[first : first + FRAME])
        time.sleep(0.025)
    say(socket, type="close")
    stable: list[str] = []
    utterance = most_stable = 0
    for message in told(socket):
        if message["type"] not in ("interim", "final"):
            continue
        words = message["text"].split()
        if message["utterance"] == utterance:
            assert words[: len(stable)] == stable
        utterance, stable = message["utterance"], words[: message.get("stable", 0)]
        most_stable = max(most_stable, len(stable))
        if message["type"] == "final":
            utterance, stable = utterance + 1, []
    assert most_stable > 0


@pytest.mark.parametrize("frame", [1, 333, 10_000_001])
def test_any_frames(door, dial, beckett, frame) -> None:
    """Odd counts of bytes, single ones, and all at once."""
    audio = pcm(beckett)
    if frame == 1:
        audio = audio[:20_000]
    socket = dial(interim="false")
    send(socket, audio, frame)
    say(socket, type="close")
    whole = dial(interim="false")
    send(whole, audio)
    say(whole, type="close")
    assert text_of(told(socket)) == text_of(told(whole))


def test_a_frame_of_50_mb_is_too_large(dial) -> None:
    socket = dial()
    told(socket, until="ready")
    with contextlib.suppress(ConnectionClosed):  # it may be told before all of it is sent
        socket.send(bytes(50_000_000))
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=10)
    # The reason is lost where the client was still sending.
    assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
    assert told(dial(), until="ready")


def test_finalize_brings_what_was_said_and_nothing_twice(dial, beckett) -> None:
    audio = pcm(beckett)
    socket = dial(endpointing_ms="false")
    send(socket, audio[: 32_000 * 3])
    say(socket, type="finalize")
    first = told(socket, until="flushed")
    assert text_of(first)
    assert {message["reason"] for message in first if message["type"] == "final"} == {"finalize"}
    say(socket, type="finalize")
    assert [m["type"] for m in told(socket, until="flushed") if m["type"] != "progress"] == ["flushed"]
    send(socket, audio[32_000 * 3 :])
    say(socket, type="close")
    assert text_of(told(socket))


def test_a_connection_that_breaks_is_taken_up(dial, beckett) -> None:
    audio = pcm(beckett)
    undisturbed = dial(interim="false")
    send(undisturbed, audio)
    say(undisturbed, type="close")
    wanted = [m for m in told(undisturbed) if m["type"] == "final"]

    socket = dial(interim="false")
    ready = told(socket, until="ready")[0]
    found: list[dict[str, Any]] = []
    sent = last = 0
    for part in range(4):
        upto = len(audio) * (part + 1) // 4
        send(socket, audio[sent:upto], 4_999)
        # Not waiting for anything: some of it is still on its way when the line goes down.
        socket.socket.close()
        socket = dial(resume=ready["resume_token"], after=last)
        again = told(socket, until="ready")[0]
        assert again["resumed"]
        assert again["id"] == ready["id"]
        assert again["received_bytes"] <= upto
        sent = again["received_bytes"]
    send(socket, audio[sent:])
    say(socket, type="close")
    found = [m for m in told(socket) if m["type"] == "final"]
    assert [m["text"] for m in found] == [m["text"] for m in wanted]


def test_what_is_missed_is_told_again_once(dial, beckett) -> None:
    socket = dial()
    ready = told(socket, until="ready")[0]
    send(socket, pcm(beckett))
    say(socket, type="finalize")
    before = told(socket, until="flushed")
    final = next(m for m in before if m["type"] == "final")
    socket.socket.close()
    socket = dial(resume=ready["resume_token"], after=final["seq"])
    say(socket, type="close")
    after = told(socket)
    behind = [m["seq"] for m in before if m.get("seq", 0) > final["seq"] and m["type"] != "interim"]
    assert [m["seq"] for m in after if m.get("seq", 0) in behind] == behind
    assert final["seq"] not in [m.get("seq") for m in after]


@pytest.mark.parametrize("token", ["", "nobody", "nobody.nothing", "x" * 200])
def test_a_stream_that_is_not_there_cannot_be_taken_up(dial, token) -> None:
    with pytest.raises(InvalidStatus) as refused:
        dial(resume=token or "-")
    assert refused.value.response.status_code == 404


def test_nobody_takes_up_a_stream_with_half_a_secret(dial) -> None:
    ready = told(dial(), until="ready")[0]
    with pytest.raises(InvalidStatus) as refused:
        dial(resume=ready["id"] + ".guess")
    assert refused.value.response.status_code == 404


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ({"encoding": "mp7"}, 422, "encoding"),
        ({"sample_rate": 1}, 422, "sample_rate"),
        ({"sample_rate": 8000, "encoding": "flac"}, 422, "sample_rate"),
        ({"endpointing_ms": 5}, 422, "endpointing_ms"),
        ({"interim_every_ms": "soon"}, 422, "interim_every_ms"),
        ({"langauge": "en"}, 422, "langauge"),
        ({"language": "xx"}, 422, "language"),
        ({"model": "no-such-model"}, 404, None),
    ],
)
def test_what_cannot_be_is_refused_before_the_socket_opens(dial, query, status, field) -> None:
    with pytest.raises(InvalidStatus) as refused:
        dial(**query)
    assert refused.value.response.status_code == status
    error = json.loads(refused.value.response.body)["error"]
    assert error["field"] == field or field is None
    assert error["message"]


@pytest.mark.parametrize("key", [None, "wrong"])
def test_a_wrong_key_is_refused_before_the_socket_opens(dial, key) -> None:
    with pytest.raises(InvalidStatus) as refused:
        dial(key=key)
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body)["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    "message",
    [
        "",
        "null",
        "[]",
        "{",
        '{"type": "shout"}',
        '{"type": 7}',
        '{"type": "configure", "volume": 11}',
        '{"type": "configure", "endpointing_ms": -1}',
        '{"type": "configure", "language": "xx"}',
        '{"type": "finalize", "now": true}',
        "[" * 100_000,
        "x" * 300_000,
    ],
)
def test_a_message_that_is_none_is_told_and_all_else_goes_on(dial, beckett, message) -> None:
    socket = dial(interim="false")
    send(socket, pcm(beckett)[:96_000])
    socket.send(message)
    error = told(socket, until="error")[-1]
    assert not error["fatal"]
    say(socket, type="close")
    assert text_of(told(socket))


def test_wishes_change_in_the_middle(dial, beckett) -> None:
    socket = dial(interim="false", endpointing_ms="false")
    audio = pcm(beckett)
    say(socket, type="configure", endpointing_ms=200)
    send(socket, audio)
    say(socket, type="close")
    reasons = [m["reason"] for m in told(socket) if m["type"] == "final"]
    assert "silence" in reasons


def test_channels_apart(dial, beckett) -> None:
    speech = np.frombuffer(pcm(beckett), np.int16)
    both = np.stack([speech, np.zeros_like(speech)], axis=1).tobytes()
    socket = dial(input_channels=2, channels="split", interim="false")
    send(socket, both)
    say(socket, type="close")
    finals = [m for m in told(socket) if m["type"] == "final"]
    assert {m["channel"] for m in finals} == {0}
    assert {segment["channel"] for m in finals for segment in m["segments"]} == {0}


def test_audio_that_cannot_be_decoded_ends_it(dial) -> None:
    socket = dial(encoding="auto")
    socket.send(b"this is no audio at all" * 1_000)
    say(socket, type="close")
    error = told(socket, until="error")[-1]
    assert error["fatal"]
    assert error["error"]["kind"] == "invalid_audio"
    with pytest.raises(ConnectionClosed) as closed:
        socket.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1003


def test_silence_and_nothing(dial) -> None:
    for audio in (b"", bytes(32_000 * 5)):
        socket = dial()
        send(socket, audio)
        say(socket, type="close")
        messages = told(socket)
        assert not [m for m in messages if m["type"] in ("interim", "final", "speech_started")]
        assert messages[-1]["duration"] == pytest.approx(len(audio) / 32_000)


def test_a_container_in_pieces(door, dial, beckett) -> None:
    """WebM with Opus, as browsers record it."""
    av = pytest.importorskip("av")
    made = io.BytesIO()
    with av.open(str(beckett)) as source, av.open(made, "w", format="webm") as target:
        stream = target.add_stream("libopus", rate=48_000)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=48_000)
        for frame in source.decode(audio=0):
            for part in resampler.resample(frame):
                target.mux(stream.encode(part))
        target.mux(stream.encode(None))
    socket = dial(encoding="auto", interim="false")
    send(socket, made.getvalue(), 1_000)
    say(socket, type="close")
    assert wer(file_text(door, beckett), text_of(told(socket))) <= 0.15


def test_every_message_is_documented(door) -> None:
    document = httpx.get(f"{door.url}/asyncapi.json", headers={"Authorization": f"Bearer {door.key}"}).json()
    assert document["asyncapi"] == "3.0.0"
    names = set(document["components"]["messages"])
    assert names == {model.__name__ for model in (*CLIENT_MESSAGES, *SERVER_MESSAGES)} | {"Audio"}
    text = json.dumps(document)
    for pointer in _references(document):
        assert _found(document, pointer), pointer
    assert "/v1/stream" in text


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _found(document: Any, pointer: str) -> bool:
    for step in pointer.removeprefix("#/").split("/"):
        if step not in document:
            return False
        document = document[step]
    return True
