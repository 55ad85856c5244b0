"""`POST /v1/listen` as Deepgram's unmodified SDKs call and read it, in the versions 5, 6 and 7."""

import hashlib
from itertools import pairwise

import httpx
import pytest

from voiceforge.errors import Overloaded, UnreadableAudio
from voiceforge.testing.scripted_services import fails

SAID = "ever failed"


def test_a_recording(sdk, beckett):
    made = sdk.transcribe(beckett, model="nova-3", smart_format=True, utterances=True, detect_language=True)
    assert made["class"] == "ListenV1Response"
    assert made["metadata"]["sha256"] == hashlib.sha256(beckett.read_bytes()).hexdigest()
    assert 9 < made["metadata"]["duration"] < 11
    assert made["metadata"]["channels"] == 1
    [uuid] = made["metadata"]["models"]
    assert made["metadata"]["model_info"][uuid]["arch"] == "moonshine"
    [channel] = made["results"]["channels"]
    assert channel["detected_language"] == "en"
    [alternative] = channel["alternatives"]
    assert SAID in alternative["transcript"].lower()
    assert alternative["transcript"].startswith("Ever")
    assert 0 < alternative["confidence"] <= 1
    assert alternative["paragraphs"]["paragraphs"][0]["sentences"]
    assert " ".join(one["transcript"] for one in made["results"]["utterances"]) == alternative["transcript"]


def test_word_times_are_monotonic_and_inside_the_recording(sdk, two_cities):
    made = sdk.transcribe(two_cities, model="nova-2", punctuate=True)
    words = made["results"]["channels"][0]["alternatives"][0]["words"]
    assert len(words) > 100
    assert all(0 <= word["start"] <= word["end"] <= made["metadata"]["duration"] for word in words)
    assert all(before["end"] <= after["start"] + 1e-6 for before, after in pairwise(words))
    assert all(isinstance(word["confidence"], float) for word in words)


def test_repeated_keys_and_unknown_ones(scripted_sdk, beckett, scripted):
    made = scripted_sdk.transcribe(
        beckett,
        model="fake",
        keyterm=["Beckett", "Worstward Ho"],
        tag=["one", "two"],
        mip_opt_out=True,
        version="latest",
        numerals=False,
    )
    assert made["metadata"]["tags"] == ["one", "two"]
    assert scripted.requests[-1].options.keyterms == ("Beckett", "Worstward Ho")


def test_a_url(scripted_sdk, scripted):
    made = scripted_sdk.ask("recording", at="https://example.com/speech.wav")
    assert made["results"]["channels"][0]["alternatives"][0]["transcript"]
    assert scripted.uploads == [b"https://example.com/speech.wav"]


def test_access_tokens_come_as_bearer_in_lower_case(scripted_sdk, beckett):
    made = scripted_sdk.ask("recording", file=str(beckett), key_as="access_token")
    assert made["class"] == "ListenV1Response"


@pytest.mark.parametrize("key_as", ["api_key", "access_token"])
def test_a_wrong_key(scripted_sdk, beckett, key_as):
    made = scripted_sdk.ask("recording", file=str(beckett), key="wrong", key_as=key_as)
    assert (made["error"], made["status"]) == ("ApiError", 401)
    assert made["body"]["err_code"] == "INVALID_AUTH"
    assert made["body"]["err_msg"] == "Invalid credentials."


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [(UnreadableAudio("corrupt data"), "BadRequestError", 400), (Overloaded("busy"), "ApiError", 429)],
)
def test_errors_have_the_sdks_classes(scripted_sdk, scripted, beckett, error, kind, status):
    scripted.script = fails(error)
    made = scripted_sdk.transcribe(beckett, model="fake")
    assert (made["error"], made["status"]) == (kind, status)
    assert made["body"]["err_msg"] == error.message
    assert made["headers"]["dg-request-id"] == made["body"]["request_id"]


def test_what_is_lacking_is_a_bad_request(scripted_sdk, beckett, scripted):
    made = scripted_sdk.transcribe(beckett, diarize=True)
    assert made["error"] == "BadRequestError"
    assert "diariz" in made["body"]["err_msg"]
    assert scripted.requests == []


def test_livekits_request(scripted_door, scripted):
    """Its recognize() sends these, and reads the first channel."""
    reply = httpx.post(
        f"{scripted_door.url}/v1/listen",
        params={
            "model": "fake",
            "punctuate": "true",
            "detect_language": "false",
            "smart_format": "false",
            "keywords": "",
            "profanity_filter": "false",
            "numerals": "false",
            "mip_opt_out": "false",
            "language": "en-US",
        },
        content=b"sound",
        headers={
            "Authorization": f"Token {scripted_door.key}",
            "Accept": "application/json",
            "Content-Type": "audio/wav",
        },
    )
    assert reply.status_code == 200
    [channel] = reply.json()["results"]["channels"]
    assert channel["alternatives"][0]["transcript"] == "Hello there. This is a test."
    assert set(channel["alternatives"][0]["words"][0]) >= {"start", "end", "word", "confidence"}
