"""OpenAI's fields as they really arrive, and what becomes of them."""

import httpx
import pytest

from voiceforge.api.http.config import HttpFeatures
from voiceforge.api.http.languages import code_of
from voiceforge.errors import UnsupportedOption
from voiceforge.speech.options import VadOptions

PATH = "/v1/audio/transcriptions"


async def ask(client, *fields: tuple[str, str], path: str = PATH):
    form: dict[str, list[str]] = {}
    for name, value in fields:
        form.setdefault(name, []).append(value)
    return await client.post(path, data=form, files={"file": ("upload", b"x")})


async def options(client, scripted, *fields: tuple[str, str]):
    reply = await ask(client, *fields)
    assert reply.status_code == 200, reply.text
    return scripted.requests[-1].options


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("english", "en"),
        ("English", "en"),
        ("en-US", "en"),
        ("pt_BR", "pt"),
        ("zh-Hans-CN", "zh"),
        ("haitian creole", "ht"),
        ("Castilian", "es"),
        ("yue", "yue"),
        (" de ", "de"),
        ("klingonese", "klingonese"),
    ],
)
def test_languages_are_understood_as_people_write_them(written, code):
    assert code_of(written) == code


async def test_language(client, scripted):
    assert (await options(client, scripted, ("language", "German"))).language == "de"


async def test_one_expected_language_is_the_language(client, scripted):
    assert (await options(client, scripted, ("languages[]", "de-AT"))).language == "de"


async def test_several_expected_languages_leave_it_open_and_say_so(client, scripted):
    reply = await ask(client, ("languages[]", "de"), ("languages[]", "fr"))
    assert scripted.requests[-1].options.language is None
    assert reply.json()["x_warnings"][0]["code"] == "option_ignored"


@pytest.mark.parametrize(("sent", "meant"), [("0", None), ("0.0", None), ("0.4", 0.4)])
async def test_temperature_zero_leaves_the_choice_to_the_engine(client, scripted, sent, meant):
    assert (await options(client, scripted, ("temperature", sent))).temperature == meant


async def test_keywords_and_prompt(client, scripted):
    made = await options(
        client, scripted, ("keywords[]", "Kowalski"), ("keywords[]", "Łódź"), ("prompt", "A call.")
    )
    assert made.keyterms == ("Kowalski", "Łódź")
    assert made.prompt == "A call."


@pytest.mark.parametrize(
    "fields",
    [
        [
            ("chunking_strategy[type]", "server_vad"),
            ("chunking_strategy[threshold]", "0.7"),
            ("chunking_strategy[prefix_padding_ms]", "250"),
            ("chunking_strategy[silence_duration_ms]", "450"),
        ],
        [
            (
                "chunking_strategy",
                '{"type":"server_vad","threshold":0.7,"prefix_padding_ms":250,"silence_duration_ms":450}',
            )
        ],
    ],
    ids=["fields", "json"],
)
async def test_server_vad_sets_the_thresholds(client, scripted, fields):
    made = (await options(client, scripted, *fields)).vad
    assert (made.threshold, made.padding_ms, made.min_silence_ms) == (0.7, 250, 450)


async def test_server_vad_without_numbers_and_auto_keep_the_defaults(client, scripted):
    for field in [("chunking_strategy[type]", "server_vad"), ("chunking_strategy", "auto")]:
        assert (await options(client, scripted, field)).vad == VadOptions()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("response_format", "xml")], "response_format"),
        (
            [("response_format", "verbose_json"), ("timestamp_granularities[]", "sentence")],
            "timestamp_granularities",
        ),
        ([("include[]", "everything")], "include"),
        ([("response_format", "diarized_json")], "response_format"),
        ([("known_speaker_names[]", "Ann")], "known_speaker_names"),
        ([("known_speaker_references[]", "data:audio/wav;base64,AAAA")], "known_speaker_references"),
        ([("stream", "true"), ("response_format", "srt")], "response_format"),
    ],
)
async def test_what_we_cannot_do_is_422_and_names_the_field(client, fields, param):
    reply = await ask(client, *fields)
    assert reply.status_code == 422
    assert reply.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("timestamp_granularities[]", "word")], "timestamp_granularities"),
        ([("temperature", "2")], "temperature"),
        ([("temperature", "warm")], "temperature"),
        ([("stream", "perhaps")], "stream"),
        ([("chunking_strategy", "{not json")], "chunking_strategy"),
        (
            [("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "5")],
            "chunking_strategy",
        ),
    ],
)
async def test_what_makes_no_sense_is_400_and_names_the_field(client, fields, param):
    reply = await ask(client, *fields)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param


async def test_choices_are_listed(client):
    message = (await ask(client, ("response_format", "xml"))).json()["error"]["message"]
    assert "json, text, srt, verbose_json, vtt" in message


async def test_choices_only_the_model_knows_are_listed_too(client, scripted):
    scripted.refusal = UnsupportedOption(
        "this model does not do that", field="language", choices=("de", "en")
    )
    error = (await ask(client, ("language", "fr"))).json()["error"]
    assert error["message"].endswith("de, en")
    assert error["param"] == "language"


async def test_fields_nobody_knows_are_ignored(client):
    assert (await ask(client, ("vad_filter", "true"), ("hotwords[x]", "y"))).status_code == 200


async def test_logprobs_are_accepted_and_said_to_be_absent(client):
    reply = await ask(client, ("include[]", "logprobs"))
    assert reply.status_code == 200
    assert "logprobs" not in reply.json()
    assert "logprobs" in reply.json()["x_warnings"][0]["message"]


async def test_without_a_model_the_default_answers(client, scripted):
    await ask(client)
    assert scripted.requests[-1].model == "fake"


async def test_unasked_word_times_are_not_computed(client, scripted):
    assert (await options(client, scripted, ("response_format", "verbose_json"))).words is False


async def test_translations_ask_for_translation(client, scripted):
    reply = await ask(client, ("response_format", "verbose_json"), path="/v1/audio/translations")
    assert scripted.requests[-1].options.task == "translate"
    assert reply.json()["language"] == "english"


async def test_translations_know_no_diarization(client):
    reply = await ask(client, ("response_format", "diarized_json"), path="/v1/audio/translations")
    assert reply.status_code == 422


async def test_the_file_may_come_first_and_without_a_filename(client, scripted):
    body = (
        b'--B\r\nContent-Disposition: form-data; name="file"\r\n\r\naudio\r\n'
        b'--B\r\nContent-Disposition: form-data; name="language"\r\n\r\nde\r\n--B--\r\n'
    )
    reply = await client.post(PATH, content=body, headers={"Content-Type": "multipart/form-data; boundary=B"})
    assert reply.status_code == 200
    assert scripted.uploads == [b"audio"]
    assert scripted.requests[-1].options.language == "de"


@pytest.mark.parametrize(
    "content_type", ["application/json", "audio/wav", "application/x-www-form-urlencoded"]
)
async def test_bodies_that_are_no_form_are_refused(client, content_type):
    reply = await client.post(PATH, content=b"{}", headers={"Content-Type": content_type})
    assert reply.status_code == 400
    assert "multipart/form-data" in reply.json()["error"]["message"]


async def test_the_openai_door_can_be_closed(make_app):
    app = make_app(features=HttpFeatures(openai_api=False, metrics=False))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.post(PATH, files={"file": b"x"})).status_code == 404
        assert (await client.get("/metrics")).status_code == 404
        assert (await client.get("/v1/models")).status_code == 200
