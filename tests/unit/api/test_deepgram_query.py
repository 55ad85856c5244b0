"""Deepgram's query as it really arrives, and what becomes of it."""

import contextlib

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.api.deepgram_compat.live_wishes import live_wish
from voiceforge.api.deepgram_compat.schemas import ListenQuery, LiveQuery
from voiceforge.api.deepgram_compat.wishes import listen_wish
from voiceforge.api.http.config import HttpFeatures
from voiceforge.api.http.forms import Fields, parse
from voiceforge.errors import InvalidRequest
from voiceforge.speech.options import EncodedFormat, RawFormat, StreamOptions, TranscribeOptions

PATH = "/v1/listen"
Pairs = list[tuple[str, str]]


async def ask(client, *pairs: tuple[str, str], **more):
    more = more or {"content": b"x", "headers": {"Content-Type": "application/octet-stream"}}
    return await client.post(PATH, params=pairs, **more)


async def asked(client, scripted, *pairs: tuple[str, str]):
    reply = await ask(client, *pairs)
    assert reply.status_code == 200, reply.text
    return scripted.requests[-1]


def wish_of(*pairs: tuple[str, str]):
    return listen_wish(parse(ListenQuery, Fields(pairs).as_input(ListenQuery)), TranscribeOptions())


def live_wish_of(*pairs: tuple[str, str]):
    return live_wish(parse(LiveQuery, Fields(pairs).as_input(LiveQuery)), StreamOptions())


async def test_plain(client, scripted):
    work = await asked(client, scripted)
    assert work.model == "fake"
    assert work.options.words
    assert work.options.language is None


@pytest.mark.parametrize("yes", ["true", "True", "TRUE", "1"])
def test_booleans_as_each_sdk_writes_them(yes):
    assert wish_of(("punctuate", yes)).writing.punctuated
    assert live_wish_of(("interim_results", yes)).request.options.interim


@pytest.mark.parametrize("no", ["false", "False", "0"])
def test_booleans_that_are_off(no):
    assert not wish_of(("punctuate", no), ("diarize", no)).writing.punctuated
    assert not live_wish_of(("vad_events", no)).vad_events


def test_keyterms_repeat():
    wish = wish_of(("keyterm", "Beckett"), ("keyterm", "Worstward Ho"), ("keyterm", "Beckett"))
    assert wish.options.keyterms == ("Beckett", "Worstward Ho")


def test_keywords_lose_their_boost_and_are_never_suppressed():
    wish = wish_of(("keywords", "snuffleupagus:1.5"), ("keywords", "a: b"), ("keywords", "Cargo:-1.5"))
    assert wish.options.keyterms == ("snuffleupagus", "a: b")
    assert [warning.parameter for warning in wish.warnings] == ["keywords"]


def test_unknown_keys_are_ignored():
    wish_of(("no_delay", "true"), ("tier", "enhanced"), ("no_such_thing", "1"))
    live_wish_of(("no_delay", "true"), ("vad_turnoff", "500"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("diarize", "true"),
        ("diarize_model", "latest"),
        ("summarize", "v2"),
        ("summarize", "True"),
        ("redact", "pci"),
        ("detect_entities", "true"),
        ("sentiment", "true"),
        ("topics", "true"),
        ("intents", "true"),
        ("custom_topic", "weather"),
        ("custom_intent", "leave"),
    ],
)
async def test_what_is_lacking_is_refused_before_the_recording_is_read(client, scripted, name, value):
    reply = await ask(client, (name, value))
    assert reply.status_code == 400
    assert reply.json()["err_code"] == "Bad Request"
    assert reply.json()["err_msg"].startswith(f"{name}: ")
    assert scripted.requests == []


async def test_callbacks_need_a_process_that_takes_jobs(client, scripted):
    reply = await ask(client, ("callback", "https://example.com/hook"))
    assert reply.status_code == 400
    assert "callback" in reply.json()["err_msg"]
    assert scripted.uploads == []


@pytest.mark.parametrize("name", ["diarize", "redact", "summarize", "topics", "diarize_model"])
def test_what_is_lacking_can_be_declined(name):
    wish_of((name, "false"))


@pytest.mark.parametrize(
    "name", ["profanity_filter", "numerals", "measurements", "dictation", "filler_words"]
)
def test_what_clients_ask_for_by_themselves_is_let_pass_and_noted(name):
    for wish in (wish_of((name, "true")), live_wish_of((name, "true"))):
        assert [warning.parameter for warning in wish.warnings] == [name]
    assert wish_of((name, "false")).warnings == ()


@pytest.mark.parametrize(
    ("pairs", "language"),
    [
        ([], None),
        ([("language", "en-US")], "en"),
        ([("language", "multi")], None),
        ([("detect_language", "true"), ("language", "de")], None),
        ([("detect_language", "es")], "es"),
        ([("detect_language", "es"), ("detect_language", "en")], None),
        ([("detect_language", "false"), ("language", "de")], "de"),
    ],
)
def test_languages(pairs, language):
    assert wish_of(*pairs).options.language == language


def test_headerless_audio():
    wish = wish_of(
        ("encoding", "mulaw"), ("sample_rate", "8000"), ("channels", "2"), ("multichannel", "true")
    )
    assert wish.options.raw == RawFormat("mulaw", 8000, 2)
    assert wish.options.channels == "split"
    assert wish_of(("encoding", "flac")).options.raw is None


@pytest.mark.parametrize(
    "pairs",
    [
        [("encoding", "linear16")],
        [("encoding", "g729"), ("sample_rate", "8000")],
        [("encoding", "linear16"), ("sample_rate", "1")],
        [("encoding", "linear16"), ("sample_rate", "many")],
        [("punctuate", "perhaps")],
        [("utt_split", "-1")],
        [("utt_split", "nan")],
        [("replace", "nothing")],
        [("replace", ":nothing")],
    ],
)
async def test_what_cannot_be_understood_is_a_bad_request(client, scripted, pairs):
    reply = await ask(client, *pairs)
    assert reply.status_code == 400
    assert reply.headers["dg-error"]
    assert scripted.requests == []


@pytest.mark.parametrize(
    ("given", "ms"),
    [(None, 300), ("true", 300), ("false", None), ("False", None), ("0", None), ("500", 500), ("10", 100)],
)
def test_endpointing(given, ms):
    pairs = [] if given is None else [("endpointing", given)]
    assert live_wish_of(*pairs).request.options.endpointing_ms == ms


@pytest.mark.parametrize(
    "pairs",
    [
        [("endpointing", "soon")],
        [("endpointing", "99999")],
        [("utterance_end_ms", "1")],
        [("callback", "https://example.com")],
        [("search", "word")],
        [("diarize", "true")],
        [("encoding", "speex")],
        [("encoding", "linear16")],
    ],
)
def test_what_a_live_stream_cannot_be(pairs):
    with pytest.raises(InvalidRequest):
        live_wish_of(*pairs)


def test_a_live_stream_in_full():
    wish = live_wish_of(
        ("model", "nova-3"),
        ("language", "en-GB"),
        ("encoding", "linear16"),
        ("sample_rate", "16000"),
        ("channels", "2"),
        ("multichannel", "true"),
        ("interim_results", "true"),
        ("utterance_end_ms", "1000"),
        ("endpointing", "250"),
        ("smart_format", "true"),
        ("keyterm", "Estragon"),
        ("vad_events", "true"),
        ("tag", "a"),
        ("extra", "k:v:w"),
    )
    request = wish.request
    assert request.audio == RawFormat("s16le", 16_000, 2)
    assert request.channels == "split"
    assert request.model == "nova-3"
    assert request.options == StreamOptions(
        language="en",
        keyterms=("Estragon",),
        interim=True,
        endpointing_ms=250,
        utterance_end_ms=1000,
    )
    assert wish.writing.punctuated
    assert (wish.tags, wish.extra) == (("a",), {"k": "v:w"})


def test_encodings_of_live_streams():
    assert live_wish_of().request.audio is None
    assert live_wish_of(("encoding", "opus")).request.audio == EncodedFormat("opus")
    assert live_wish_of(("encoding", "ogg-opus")).request.audio == EncodedFormat("ogg-opus")
    rated = [("encoding", "linear32"), ("sample_rate", "48000")]
    assert live_wish_of(*rated).request.audio == RawFormat("f32le", 48_000, 1)


names = st.sampled_from([*LiveQuery.model_fields, *ListenQuery.model_fields, "no_delay"])
values = st.one_of(
    st.text(max_size=20), st.sampled_from(["true", "False", "10", "linear16", "a:b", "en-US", "1e999"])
)


@given(st.lists(st.tuples(names, values), max_size=12))
def test_any_query_is_understood_or_refused(pairs: Pairs):
    for understand in (wish_of, live_wish_of):
        with contextlib.suppress(InvalidRequest):
            understand(*pairs)


async def test_a_url(client, scripted):
    reply = await ask(client, json={"url": "https://example.com/a.wav"})
    assert reply.status_code == 200
    assert scripted.uploads == [b"https://example.com/a.wav"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"url": 3}', b'{"url": ""}'])
async def test_json_without_a_url(client, scripted, body):
    reply = await ask(client, content=body, headers={"Content-Type": "application/json; charset=utf-8"})
    assert reply.status_code == 400
    assert scripted.requests == []


async def test_urls_can_be_switched_off(make_app, scripted):
    app = make_app(features=HttpFeatures(url_input=False))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await ask(client, json={"url": "https://example.com/a.wav"})).status_code == 400


async def test_the_door_can_be_closed(make_app):
    app = make_app(features=HttpFeatures(deepgram_api=False))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await ask(client)).status_code == 404


@pytest.mark.parametrize("kind", ["audio/wav", "audio/*", "application/octet-stream", "text/plain", ""])
async def test_any_body_is_audio(client, scripted, kind):
    reply = await ask(client, content=b"sound", headers={"Content-Type": kind})
    assert reply.status_code == 200
    assert scripted.uploads == [b"sound"]
