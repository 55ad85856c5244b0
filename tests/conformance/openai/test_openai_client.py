"""The unmodified `openai` client against the embedded engine: every call, format and field for audio."""

import io

import openai
import pysrt
import pytest
import webvtt

SAID = "ever failed"


@pytest.fixture(scope="module")
def client(door):
    with openai.OpenAI(base_url=f"{door.url}/v1", api_key=door.key, max_retries=0) as made:
        yield made


@pytest.fixture
async def async_client(door):
    async with openai.AsyncOpenAI(base_url=f"{door.url}/v1", api_key=door.key, max_retries=0) as made:
        yield made


def transcribe(client, path, **options):
    return client.audio.transcriptions.create(model="whisper-1", file=path, **options)


def test_json(client, beckett):
    made = transcribe(client, beckett)
    assert SAID in made.text.lower()
    assert made.usage.type == "duration"
    assert 9 <= made.usage.seconds <= 11
    assert made.languages[0].code == "en"


def test_text(client, beckett):
    made = transcribe(client, beckett, response_format="text")
    assert isinstance(made, str)
    assert SAID in made.lower()


def test_srt(client, two_cities):
    cues = pysrt.from_string(transcribe(client, two_cities, response_format="srt"))
    assert len(cues) > 5
    assert "worst of times" in " ".join(cue.text for cue in cues).replace("\n", " ").lower()
    assert cues[-1].end.ordinal <= 45_000


def test_vtt(client, two_cities):
    text = transcribe(client, two_cities, response_format="vtt")
    assert text.startswith("WEBVTT")
    assert len(webvtt.from_buffer(io.StringIO(text)).captions) > 5


def test_verbose_json(client, two_cities):
    made = transcribe(client, two_cities, response_format="verbose_json")
    assert made.language == "english"
    assert isinstance(made.duration, float)
    assert 43 < made.duration < 45
    assert made.words is None
    assert [segment.id for segment in made.segments] == list(range(len(made.segments)))
    assert made.text == " ".join(segment.text for segment in made.segments)
    for segment in made.segments:
        assert 0 <= segment.start < segment.end <= made.duration
        for number in (
            segment.avg_logprob,
            segment.no_speech_prob,
            segment.compression_ratio,
            segment.temperature,
        ):
            assert isinstance(number, float)
        assert isinstance(segment.seek, int)
        assert isinstance(segment.tokens, list)
    assert made.x_coverage["speech_s"] > 30
    assert made.task == "transcribe"


def test_verbose_json_is_only_what_the_clients_types_say_and_ours(client, two_cities):
    """Validated strictly, which the client itself does not do."""
    from openai.types.audio import TranscriptionVerbose

    raw = client.audio.transcriptions.with_raw_response.create(
        model="whisper-1",
        file=two_cities,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    TranscriptionVerbose.model_validate_json(raw.content, strict=True)


@pytest.mark.parametrize(
    ("asked", "segments", "words"),
    [(["segment"], True, False), (["word"], False, True), (["word", "segment"], True, True)],
)
def test_granularities(client, beckett, asked, segments, words):
    made = transcribe(client, beckett, response_format="verbose_json", timestamp_granularities=asked)
    assert (made.segments is not None) == segments
    assert (made.words is not None) == words
    if words:
        assert "".join(word.word for word in made.words) == made.text.replace(" ", "")
        starts = [word.start for word in made.words]
        assert starts == sorted(starts)
        assert all(0 <= word.start <= word.end <= made.duration for word in made.words)


def test_streaming(client, two_cities):
    *deltas, done = transcribe(client, two_cities, stream=True)
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert len(deltas) > 1
    assert done.type == "transcript.text.done"
    assert "".join(event.delta for event in deltas) == done.text
    assert done.text == transcribe(client, two_cities).text
    assert done.usage.total_tokens == 0


async def test_streaming_with_the_async_client(async_client, beckett):
    stream = await transcribe(async_client, beckett, stream=True)
    events = [event async for event in stream]
    assert events[-1].text == "".join(event.delta for event in events[:-1])
    assert SAID in events[-1].text.lower()


async def test_the_async_client(async_client, beckett):
    assert SAID in (await transcribe(async_client, beckett)).text.lower()


@pytest.mark.parametrize(
    "model", ["whisper-1", "gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"]
)
def test_the_ids_that_clients_have_compiled_in(client, beckett, model):
    assert SAID in client.audio.transcriptions.create(model=model, file=beckett).text.lower()


def test_bytes_without_a_name(client, beckett):
    assert SAID in transcribe(client, beckett.read_bytes()).text.lower()


def test_a_name_that_lies(client, beckett):
    assert SAID in transcribe(client, ("speech.mp3", beckett.read_bytes(), "audio/mpeg")).text.lower()


def test_everything_the_client_can_send_at_once(client, beckett):
    made = transcribe(
        client,
        beckett,
        language="en",
        prompt="Samuel Beckett.",
        temperature=0,
        response_format="json",
        include=["logprobs"],
        keywords=["Beckett"],
        languages=["en"],
        chunking_strategy={
            "type": "server_vad",
            "threshold": 0.4,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 500,
        },
        extra_body={"vad_filter": True, "something": ["else", "again"]},
    )
    assert SAID in made.text.lower()
    assert "logprobs" in made.x_warnings[0]["message"]


def test_automatic_chunking(client, beckett):
    assert SAID in transcribe(client, beckett, chunking_strategy="auto").text.lower()


def test_organisation_and_project_are_ignored(door, beckett):
    with openai.OpenAI(base_url=f"{door.url}/v1", api_key=door.key, organization="o", project="p") as client:
        assert SAID in transcribe(client, beckett).text.lower()


@pytest.mark.parametrize("response_format", ["json", "text", "srt", "verbose_json", "vtt"])
def test_translations(client, beckett, response_format):
    made = client.audio.translations.create(
        model="tiny-whisper", file=beckett, response_format=response_format, temperature=0
    )
    if response_format == "verbose_json":
        assert made.language == "english"
        assert made.task == "translate"
        assert made.segments is not None
    elif response_format == "json":
        assert isinstance(made.text, str)
    else:
        assert isinstance(made, str)


def test_a_model_that_cannot_translate_says_so(client, beckett):
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.audio.translations.create(model="whisper-1", file=beckett)
    assert caught.value.param == "task"
    assert "translate" in caught.value.message


def test_models(client):
    listed = list(client.models.list())
    assert all(model.object == "model" and isinstance(model.created, int) for model in listed)
    default = client.models.retrieve("whisper-1")
    assert default.id in {model.id for model in listed}
    assert default.loaded is True
    assert client.models.retrieve(default.id) == default


def test_silence_gives_empty_text(client, tmp_path):
    import wave

    silent = tmp_path / "silent.wav"
    with wave.open(str(silent), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 16_000 * 3))
    made = transcribe(client, silent)
    assert made.text == ""
    assert {warning["code"] for warning in made.x_warnings} >= {"silence"}
    [done] = transcribe(client, silent, stream=True)
    assert done.text == ""


BAD_AUDIO = {
    "empty": (b"", openai.BadRequestError, "audio_empty"),
    "text named wav": (b"this is a letter, not a recording\n" * 20, openai.BadRequestError, None),
    "header only": (
        b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80>\0\0\0}\0\0\2\0\x10\0data\0\0\0\0",
        None,
        None,
    ),
}


@pytest.mark.parametrize("name", BAD_AUDIO)
@pytest.mark.parametrize("stream", [False, True])
def test_bad_audio(client, door, name, stream):
    data, kind, code = BAD_AUDIO[name]
    with pytest.raises(kind or (openai.BadRequestError, openai.UnprocessableEntityError)) as caught:
        transcribe(client, ("a.wav", data), stream=stream)
    assert caught.value.code == code or code is None
    assert caught.value.message
    assert list(door.temp_dir.iterdir()) == []


def test_audio_that_is_too_short(client):
    import numpy as np
    import soundfile

    made = io.BytesIO()
    soundfile.write(made, np.zeros(800, dtype="float32"), 16_000, format="WAV")
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        transcribe(client, ("a.wav", made.getvalue()))
    assert caught.value.code == "audio_too_short"


def test_no_temp_file_is_left(client, door, beckett):
    transcribe(client, beckett)
    list(transcribe(client, beckett, stream=True))
    assert list(door.temp_dir.iterdir()) == []
