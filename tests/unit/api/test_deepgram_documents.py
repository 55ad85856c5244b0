"""Our transcripts as Deepgram writes them, and our errors."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.api.deepgram_compat.errors import STATUSES, DeepgramErrors
from voiceforge.api.deepgram_compat.writing import bare, spoken
from voiceforge.errors import ErrorKind, Overloaded, UnreadableAudio, UnsupportedOption, UpstreamFailed
from voiceforge.speech.transcript import Coverage, Finished, Language, ModelRef, Segment, Transcript, Word
from voiceforge.testing.scripted_services import fails, says

PATH = "/v1/listen"


async def document(client, **query):
    reply = await client.post(PATH, params=query, content=b"sound")
    assert reply.status_code == 200, reply.text
    return reply.json()


def gives(transcript):
    async def script(request):
        yield Finished(transcript)

    return script


def heard(*channels: tuple[tuple[str, float, float], ...], split=False, language="en"):
    """A transcript with one segment per channel, of words with their times."""
    segments = []
    for number, words in enumerate(channels):
        made = tuple(Word(text, start, end, 0.8) for text, start, end in words)
        segments.append(
            Segment(
                id=number,
                start=made[0].start,
                end=made[-1].end,
                text=" ".join(word.text for word in made),
                words=made,
                channel=number if split else None,
            )
        )
    return Transcript(
        text=" ".join(segment.text for segment in segments),
        segments=tuple(segments),
        duration=60.0,
        language=Language(language, 0.97),
        coverage=Coverage(1.0, 1.0),
        model=ModelRef("fake", "1"),
        channels=len(channels) if split else 1,
    )


async def test_metadata(client):
    made = (await document(client, tag=["a", "b"], extra="k:v"))["metadata"]
    [uuid] = made["models"]
    assert made["sha256"] == hashlib.sha256(b"sound").hexdigest()
    assert made["transaction_key"] == "deprecated"
    assert made["request_id"]
    assert made["created"].endswith("Z")
    assert (made["duration"], made["channels"]) == (2.0, 1)
    assert made["model_info"] == {uuid: {"name": "fake", "version": "1", "arch": "fake"}}
    assert (made["tags"], made["extra"]) == (["a", "b"], {"k": "v"})
    again = (await document(client))["metadata"]
    assert again["models"] == [uuid]
    assert not {"tags", "extra", "warnings"} & set(again)


async def test_what_was_not_done_stands_in_the_metadata(client):
    made = (await document(client, numerals="true"))["metadata"]
    assert [warning["parameter"] for warning in made["warnings"]] == ["numerals"]


async def test_words_are_bare_unless_punctuation_is_asked_for(client):
    [channel] = (await document(client))["results"]["channels"]
    [alternative] = channel["alternatives"]
    assert alternative["transcript"] == "hello there this is a test"
    assert alternative["confidence"] == 0.9
    assert alternative["words"][1] == {"word": "there", "start": 0.1, "end": 0.2, "confidence": 0.9}
    assert set(alternative) == {"transcript", "confidence", "words"}
    assert set(channel) == {"alternatives"}


@pytest.mark.parametrize("wish", ["punctuate", "smart_format", "paragraphs"])
async def test_punctuation(client, wish):
    [alternative] = (await document(client, **{wish: "true"}))["results"]["channels"][0]["alternatives"]
    assert alternative["transcript"] == "Hello there. This is a test."
    assert (alternative["words"][1]["word"], alternative["words"][1]["punctuated_word"]) == (
        "there",
        "there.",
    )
    assert ("paragraphs" in alternative) == (wish != "punctuate")


async def test_paragraphs_end_at_pauses_and_hold_sentences(client, scripted):
    words = (("One.", 0, 1), ("Two", 1, 2), ("three?", 2, 3), ("Four.", 10, 11))
    scripted.script = gives(heard(words))
    [alternative] = (await document(client, paragraphs="true"))["results"]["channels"][0]["alternatives"]
    made = alternative["paragraphs"]
    assert made["transcript"] == "\nOne. Two three?\n\nFour."
    first, second = made["paragraphs"]
    assert first["sentences"] == [
        {"text": "One.", "start": 0.0, "end": 1.0},
        {"text": "Two three?", "start": 1.0, "end": 3.0},
    ]
    assert (first["num_words"], first["start"], first["end"]) == (3, 0.0, 3.0)
    assert (second["num_words"], second["start"]) == (1, 10.0)


@pytest.mark.parametrize(("split", "count"), [(None, 2), ("0.1", 3), ("20", 1)])
async def test_utterances_are_cut_at_pauses(client, scripted, split, count):
    scripted.script = gives(heard((("One,", 0, 1), ("two.", 1.5, 2), ("Three.", 3, 4))))
    query = {"utterances": "true", "punctuate": "true"} | ({"utt_split": split} if split else {})
    made = (await document(client, **query))["results"]["utterances"]
    assert len(made) == count
    assert " ".join(one["transcript"] for one in made) == "One, two. Three."
    assert {one["channel"] for one in made} == {0}
    assert len({one["id"] for one in made}) == count
    assert made[0]["words"][0]["punctuated_word"] == "One,"


async def test_channels_stay_apart(client, scripted):
    scripted.script = gives(heard((("Left.", 0, 1),), (("Right.", 0.5, 2),), split=True))
    made = await document(client, multichannel="true", utterances="true")
    assert made["metadata"]["channels"] == 2
    texts = [channel["alternatives"][0]["transcript"] for channel in made["results"]["channels"]]
    assert texts == ["left", "right"]
    assert [one["channel"] for one in made["results"]["utterances"]] == [0, 1]
    assert scripted.requests[-1].options.channels == "split"


async def test_the_language_is_named_where_it_was_to_be_detected(client):
    [channel] = (await document(client, detect_language="true"))["results"]["channels"]
    assert (channel["detected_language"], channel["language_confidence"]) == ("en", 1.0)


async def test_search(client):
    [channel] = (await document(client, search=["is a", "Nowhere"]))["results"]["channels"]
    found, missing = channel["search"]
    assert found["query"] == "is a"
    assert found["hits"] == [{"confidence": 0.9, "start": 1.1, "end": 1.3, "snippet": "is a"}]
    assert missing["hits"] == []


async def test_replacements_keep_the_punctuation_and_the_times(client):
    query = {"replace": ["hello there:good morning all", "TEST:"], "punctuate": "true"}
    [alternative] = (await document(client, **query))["results"]["channels"][0]["alternatives"]
    assert alternative["transcript"] == "good morning all. This is a"
    first, *_ = alternative["words"]
    assert (first["word"], first["start"]) == ("good", 0.0)
    assert alternative["words"][2]["end"] == 0.2


async def test_silence(client, scripted):
    scripted.script = says()
    query = {"paragraphs": "true", "utterances": "true", "search": "x", "detect_language": "true"}
    made = await document(client, **query)
    [channel] = made["results"]["channels"]
    [alternative] = channel["alternatives"]
    assert (alternative["transcript"], alternative["confidence"], alternative["words"]) == ("", 0.0, [])
    assert alternative["paragraphs"] == {"transcript": "", "paragraphs": []}
    assert made["results"]["utterances"] == []


async def test_text_without_spaces_gets_none(client, scripted):
    scripted.script = gives(heard((("你", 0, 1), ("好。", 1, 2)), language="zh"))
    [alternative] = (await document(client, punctuate="true"))["results"]["channels"][0]["alternatives"]
    assert alternative["transcript"] == "你好。"
    assert alternative["words"][1]["word"] == "好"


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("Hello,", "hello"),
        ("It's", "it's"),
        ("\u201cwell-known\u201d", "well-known"),
        ("3.5.", "3.5"),
        ("10:30", "10:30"),
        ("$20", "20"),
        ("\u2014", ""),
        ("você!", "você"),
    ],
)
def test_bare_words(written, plain):
    assert bare(written) == plain


@given(st.lists(st.text(max_size=12), max_size=8))
def test_no_word_is_empty_and_times_are_as_they_were(texts):
    words = [Word(text, float(place), place + 0.5) for place, text in enumerate(texts)]
    made = spoken(words)
    assert all(one.bare and one.bare == bare(one.written) for one in made)
    assert [one.start for one in made] == sorted(one.start for one in made)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UnreadableAudio("corrupt"), 400, "Bad Request"),
        (UnsupportedOption("no"), 400, "Bad Request"),
        (UpstreamFailed("404"), 400, "REMOTE_CONTENT_ERROR"),
        (Overloaded("busy", retry_after_s=7), 429, "TOO_MANY_REQUESTS"),
        (ValueError("a defect"), 500, "INTERNAL_SERVER_ERROR"),
    ],
)
async def test_errors(client, scripted, error, status, code):
    scripted.script = fails(error)
    reply = await client.post(PATH, content=b"sound", headers={"X-Request-ID": "mine"})
    assert reply.status_code == status
    assert reply.json()["err_code"] == code
    assert reply.json()["request_id"] == reply.headers["dg-request-id"] == "mine"
    assert reply.headers["dg-error"] == reply.json()["err_msg"]
    assert "a defect" not in reply.text


async def test_every_answer_carries_the_request_id(client):
    good = await client.post(PATH, content=b"sound")
    assert good.headers["dg-request-id"] == good.json()["metadata"]["request_id"]
    assert "dg-error" not in good.headers
    wrong = await client.put(PATH)
    assert wrong.status_code == 405
    assert wrong.headers["dg-request-id"]


async def test_an_unknown_model_is_a_bad_request_that_names_the_others(client):
    reply = await client.post(PATH, params={"model": "nova-99"}, content=b"sound")
    assert reply.status_code == 400
    assert "fake" in reply.json()["err_msg"]


def test_every_kind_of_error_has_a_status():
    assert set(STATUSES) == set(ErrorKind)


def test_headers_take_no_strange_characters():
    headers = DeepgramErrors().headers(UnsupportedOption("naïve\r\nSet-Cookie: x" + "y" * 2000), 400)
    assert headers["dg-error"].isascii()
    assert headers["dg-error"].isprintable()
    assert len(headers["dg-error"]) <= 1000
