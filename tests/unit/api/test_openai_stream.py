import asyncio
import json
import threading

import httpx
import openai
import pytest

from voiceforge.errors import EngineFailed, Overloaded, UnreadableAudio
from voiceforge.speech.transcript import Finished, Progress, SegmentReady
from voiceforge.testing.scripted_services import fails, says, spoken

PATH = "/v1/audio/transcriptions"


async def stream(client, **fields: str):
    return await client.post(PATH, data={"stream": "true", **fields}, files={"file": ("upload", b"x")})


def events(text: str) -> list[dict]:
    assert text.endswith("\n\n")
    frames = [frame for frame in text.split("\n\n") if frame and not frame.startswith(":")]
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["One."],
        ["One.", "Two.", "Three."],
        ["", "One.", "", "Two."],
        ["Grüße aus Łódź", "日本語", "a\nb"],
    ],
    ids=["nothing", "one", "three", "empty ones", "beyond ascii"],
)
async def test_the_last_event_carries_what_the_deltas_carried(client, scripted, texts):
    scripted.script = says(*texts)
    reply = await stream(client)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    *deltas, done = events(reply.text)
    assert all(event["type"] == "transcript.text.delta" for event in deltas)
    assert done["type"] == "transcript.text.done"
    assert done["text"] == "".join(event["delta"] for event in deltas)
    assert done["text"] == " ".join(text for text in texts if text)
    assert done["usage"]["total_tokens"] == 0
    assert done["usage"]["seconds"] == len(texts)


@pytest.mark.parametrize(
    ("error", "status"),
    [(UnreadableAudio("no audio"), 400), (Overloaded("busy", retry_after_s=7), 429), (ValueError("x"), 500)],
)
async def test_an_error_before_the_first_event_is_a_plain_error_reply(
    client, scripted, error, status, log_lines
):
    scripted.script = fails(error)
    reply = await stream(client)
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert any(line["event"] == "request_crashed" for line in log_lines) == (status == 500)


@pytest.mark.parametrize(
    ("error", "code"), [(EngineFailed("it broke"), "engine_failed"), (ValueError("secret"), "internal_error")]
)
async def test_an_error_in_the_middle_is_an_event(client, scripted, services, error, code):
    scripted.script = fails(error, "One.")
    reply = await stream(client)
    assert reply.status_code == 200
    delta, failure = events(reply.text)
    assert delta["delta"] == "One."
    assert set(failure["error"]) == {"message", "type", "param", "code"}
    assert failure["error"]["code"] == code
    assert "secret" not in reply.text
    assert services.metrics.total("errors", code=code) == 1


async def test_comments_are_sent_while_nothing_happens(make_app, scripted):
    quiet = asyncio.Event()
    sent: list[bytes] = []

    async def script(request):
        transcript = spoken("One.")
        yield Progress(0.0, None)
        await quiet.wait()
        yield SegmentReady(transcript.segments[0])
        yield Finished(transcript)

    scripted.script = script
    app = make_app(ping_interval_s=0.01)

    async def listening(scope, receive, send):
        async def watched(message):
            sent.append(message.get("body", b""))
            if sent.count(b": ping\n\n") == 3:
                quiet.set()
            await send(message)

        await app(scope, receive, watched)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(listening), base_url="http://test") as client:
        reply = await stream(client)
    assert reply.text.startswith(": ping\n\n: ping\n\n: ping\n\n")
    assert events(reply.text)[-1]["text"] == "One."


async def test_nginx_is_told_not_to_buffer(client):
    assert (await stream(client)).headers["x-accel-buffering"] == "no"


async def test_warnings_reach_the_last_event(client):
    *_, done = events((await stream(client, **{"include[]": "logprobs"})).text)
    assert done["x_warnings"][0]["code"] == "option_ignored"


async def test_events_are_drawn_by_one_task(client, scripted):
    tasks = set()

    async def script(request):
        transcript = spoken("One.", "Two.")
        tasks.add(asyncio.current_task())
        for segment in transcript.segments:
            yield SegmentReady(segment)
            tasks.add(asyncio.current_task())
        yield Finished(transcript)
        tasks.add(asyncio.current_task())

    scripted.script = script
    await stream(client)
    assert len(tasks) == 1


def test_deltas_arrive_while_the_rest_is_still_being_decoded(serve, scripted):
    heard = threading.Event()

    async def script(request):
        transcript = spoken("One.", "Two.")
        yield SegmentReady(transcript.segments[0])
        assert await asyncio.to_thread(heard.wait, 20), "the client never saw the first delta"
        yield SegmentReady(transcript.segments[1])
        yield Finished(transcript)

    scripted.script = script
    client = openai.OpenAI(base_url=f"{serve().url}/v1", api_key="none", max_retries=0)
    received = []
    for event in client.audio.transcriptions.create(model="fake", file=b"x", stream=True):
        received.append(event)
        heard.set()
    assert [event.type for event in received] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
