"""The native surface's options in the query, the form and JSON; bodies; output formats."""

import json

import httpx
import pytest

from voiceforge.api.http.config import HttpFeatures
from voiceforge.api.native.schemas import TranscriptOut
from voiceforge.services.recordings import UrlSource
from voiceforge.speech.options import AudioLimits, RawFormat, TranscribeOptions, VadOptions

PATH = "/v1/transcriptions"
EVERY_OPTION = {
    "model": "fake",
    "language": "de",
    "task": "translate",
    "words": "true",
    "channels": "split",
    "prompt": "A call.",
    "keyterm": "Kowalski, Łódź",
    "temperature": "0.3",
    "beam_size": "4",
    "vad_threshold": "0.6",
    "min_speech_ms": "120",
    "min_silence_ms": "320",
    "padding_ms": "210",
    "encoding": "mulaw",
    "sample_rate": "8000",
    "input_channels": "2",
    "format": "json",
    "mode": "sync",
}


def check_every_option(made):
    assert (made.language, made.task, made.words, made.channels) == ("de", "translate", True, "split")
    assert (made.prompt, made.keyterms) == ("A call.", ("Kowalski", "Łódź"))
    assert (made.temperature, made.beam_size) == (0.3, 4)
    vad = made.vad
    assert (vad.threshold, vad.min_speech_ms, vad.min_silence_ms, vad.padding_ms) == (0.6, 120, 320, 210)
    assert made.raw == RawFormat("mulaw", 8000, 2)


async def test_every_option_in_the_query_with_a_raw_body(client, scripted):
    reply = await client.post(PATH, params=EVERY_OPTION, content=b"audio")
    assert reply.status_code == 200
    check_every_option(scripted.requests[0].options)
    assert scripted.uploads == [b"audio"]


async def test_every_option_in_the_form(client, scripted):
    reply = await client.post(PATH, data=EVERY_OPTION, files={"file": b"audio"})
    assert reply.status_code == 200
    check_every_option(scripted.requests[0].options)


async def test_every_option_in_json(client, scripted):
    typed = EVERY_OPTION | {
        "words": True,
        "temperature": 0.3,
        "beam_size": 4,
        "keyterm": ["Kowalski", "Łódź"],
    }
    reply = await client.post(PATH, json={**typed, "url": "https://example.com/a.mp3"})
    assert reply.status_code == 200
    check_every_option(scripted.requests[0].options)
    assert scripted.requests[0].source == UrlSource("https://example.com/a.mp3")


async def test_the_form_wins_over_the_query(client, scripted):
    await client.post(f"{PATH}?language=fr&beam_size=2", data={"language": "de"}, files={"file": b"x"})
    made = scripted.requests[0].options
    assert (made.language, made.beam_size) == ("de", 2)


async def test_keyterms_repeat_and_separate(client, scripted):
    await client.post(f"{PATH}?keyterm=a,b&keyterm=c", content=b"x")
    assert scripted.requests[0].options.keyterms == ("a", "b", "c")


async def test_a_url_may_come_in_a_form(client, scripted):
    await client.post(PATH, files={"url": (None, "https://example.com/a.mp3")})
    assert scripted.requests[0].source == UrlSource("https://example.com/a.mp3")


@pytest.mark.parametrize(
    "content_type", ["audio/wav", "audio/x-whatever", "video/mp4", "application/octet-stream", None]
)
async def test_raw_bodies_of_any_audio_type(client, scripted, content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    assert (await client.post(PATH, content=b"audio", headers=headers)).status_code == 200
    assert scripted.uploads == [b"audio"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("model=fake&format=xml", "format"),
        ("task=sing", "task"),
        ("channels=both", "channels"),
        ("encoding=s24be", "encoding"),
        ("mode=later", "mode"),
        ("wrds=true", "wrds"),
    ],
)
async def test_unknown_options_and_choices_are_422_with_the_choices(client, scripted, query, field):
    reply = await client.post(f"{PATH}?{query}", content=b"x")
    assert reply.status_code == 422
    error = reply.json()["error"]
    assert (error["code"], error["field"]) == ("unsupported_option", field)
    assert error["choices"]
    assert scripted.requests == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("temperature=2", "temperature"),
        ("beam_size=0", "beam_size"),
        ("beam_size=two", "beam_size"),
        ("vad_threshold=1", "vad_threshold"),
        ("vad_threshold=nan", "vad_threshold"),
        ("padding_ms=-1", "padding_ms"),
        ("words=perhaps", "words"),
        ("encoding=s16le&sample_rate=1", "sample_rate"),
        ("encoding=s16le&input_channels=99", "input_channels"),
        ("sample_rate=8000", "sample_rate"),
        ("url=http%3A%2F%2Fexample.com", "url"),
        ("model=" + "m" * 300, "model"),
    ],
)
async def test_values_out_of_range_are_422_and_name_the_field(client, query, field):
    reply = await client.post(f"{PATH}?{query}", content=b"x")
    assert reply.status_code == 422
    assert reply.json()["error"]["field"] == field


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b"{}", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"a=b", "application/x-www-form-urlencoded"),
        (b"hello", "text/plain"),
    ],
)
async def test_other_bodies_are_422(client, content, content_type):
    reply = await client.post(PATH, content=content, headers={"Content-Type": content_type})
    assert reply.status_code == 422
    assert reply.json()["error"]["message"]


async def test_an_oversized_json_body_is_413(client):
    reply = await client.post(PATH, json={"url": "x" * 2_000_000})
    assert reply.status_code == 413


async def test_a_file_and_a_url_at_once_are_refused(client):
    reply = await client.post(PATH, data={"url": "https://example.com"}, files={"file": b"x"})
    assert (reply.status_code, reply.json()["error"]["field"]) == (422, "url")


async def test_urls_can_be_switched_off(make_app, scripted):
    transport = httpx.ASGITransport(make_app(features=HttpFeatures(url_input=False)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        reply = await client.post(PATH, json={"url": "https://example.com/a.mp3"})
    assert (reply.status_code, reply.json()["error"]["field"]) == (422, "url")
    assert scripted.requests == []


FORMATS = {
    "json": "application/json",
    "verbose_json": "application/json",
    "txt": "text/plain",
    "srt": "application/x-subrip",
    "vtt": "text/vtt",
    "tsv": "text/tab-separated-values",
}


@pytest.mark.parametrize(("name", "media_type"), FORMATS.items())
async def test_the_format_option_chooses(client, name, media_type):
    reply = await client.post(f"{PATH}?format={name}", content=b"x", headers={"Accept": "text/vtt"})
    assert reply.headers["content-type"].split(";")[0] == media_type
    assert "Hello there." in reply.text


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("text/vtt", "text/vtt"),
        ("TEXT/VTT", "text/vtt"),
        ("application/x-subrip", "application/x-subrip"),
        ("text/plain; charset=utf-8", "text/plain"),
        ("text/html, text/plain;q=0.5, */*;q=0.1", "text/plain"),
        ("text/plain;q=0.1, text/vtt;q=0.9", "text/vtt"),
        ("text/plain;q=0, text/tab-separated-values;q=0.2", "text/tab-separated-values"),
        ("text/*", "text/plain"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        ("text/vtt;q=nonsense, application/json;q=0.1", "application/json"),
    ],
)
async def test_accept_chooses(client, accept, media_type):
    reply = await client.post(PATH, content=b"x", headers={"Accept": accept})
    assert reply.headers["content-type"].split(";")[0] == media_type


async def test_accept_without_anything_we_have_lists_what_there_is(client, scripted):
    reply = await client.post(PATH, content=b"x", headers={"Accept": "image/png"})
    assert reply.status_code == 422
    assert reply.json()["error"]["field"] == "Accept"
    assert "text/vtt" in reply.json()["error"]["choices"]
    assert scripted.requests == []


async def test_what_was_asked_before_does_not_answer_for_another_wish(client, scripted):
    """Each differs from its neighbours in one thing only; all come twice."""
    asked = [
        ({}, "*/*", "application/json", "transcribe", False),
        ({}, "text/vtt", "text/vtt", "transcribe", False),
        ({"words": "true"}, "*/*", "application/json", "transcribe", True),
        ({"words": "false"}, "*/*", "application/json", "transcribe", False),
        ({"task": "translate"}, "*/*", "application/json", "translate", False),
        ({"format": "txt"}, "*/*", "text/plain", "transcribe", False),
    ]
    for query, accept, media_type, task, words in asked * 2:
        reply = await client.post(PATH, params=query, content=b"x", headers={"Accept": accept})
        assert reply.headers["content-type"].split(";")[0] == media_type
        options = scripted.requests[-1].options
        assert (options.task, options.words) == (task, words)
    for _ in range(2):
        reply = await client.post(f"{PATH}?task=sing", content=b"x")
        assert reply.json()["error"]["field"] == "task"
    assert len(scripted.requests) == 2 * len(asked)


async def test_the_servers_defaults_hold_where_nothing_is_said(make_app, scripted):
    defaults = TranscribeOptions(
        normalize_peak=False, limits=AudioLimits(0.2, 60.0), vad=VadOptions(threshold=0.7)
    )
    transport = httpx.ASGITransport(make_app(defaults=defaults))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await client.post(f"{PATH}?padding_ms=50", content=b"x")
        await client.post("/v1/audio/transcriptions", files={"file": b"x"})
    for request in scripted.requests:
        assert request.options.limits == AudioLimits(0.2, 60.0)
        assert request.options.normalize_peak is False
        assert request.options.vad.threshold == 0.7


async def test_the_simple_path_answers_with_the_text_and_little_else(client):
    for request in ({"content": b"x"}, {"files": {"file": b"x"}}):
        reply = await client.post("/transcribe", **request)
        assert reply.json() == {
            "text": "Hello there. This is a test.",
            "language": "en",
            "duration": 2.0,
            "processing_s": 0.5,
            "rtf": 0.25,
        }


async def test_the_native_result_has_the_documented_shape(client):
    reply = await client.post(f"{PATH}?words=true", content=b"x")
    TranscriptOut.model_validate(json.loads(reply.content))
    assert [word["word"] for word in reply.json()["words"]][:2] == ["Hello", "there."]
