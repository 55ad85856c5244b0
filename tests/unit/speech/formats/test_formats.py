"""The door of the room, the text formats and the names in the JSON documents."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from voiceforge.errors import UnsupportedOption
from voiceforge.speech.formats import FORMATS, native_document, render, verbose_document
from voiceforge.speech.transcript import (
    Coverage,
    Gap,
    Language,
    ModelRef,
    Removal,
    Segment,
    Transcript,
    TranscriptWarning,
    Word,
)
from voiceforge.speech.transcript.languages import LANGUAGE_NAMES, language_name

DOCUMENT = Transcript(
    text="Hello, world.",
    segments=(
        Segment(
            0,
            0.1234567,
            1.9996,
            "Hello, world.",
            avg_logprob=-0.123456,
            no_speech_prob=0.01,
            words=(
                Word("Hello,", 0.1234567, 0.5, confidence=0.98765),
                Word("world.", 0.5, 1.9996, estimated=True),
            ),
            tokens=(1, 2),
        ),
    ),
    duration=4.2005,
    language=Language("en", 0.987654),
    coverage=Coverage(2.5, 1.87654, (Gap(3.0, 3.62345, "no_text"),)),
    model=ModelRef("moonshine-tiny-en", "0.0.49"),
    removed=(Removal(2.0, 2.5, "you you you", "repetition_loop"),),
    warnings=(TranscriptWarning("clipping", "The recording is clipped."),),
    processing_s=0.12345,
    rtf=0.029391,
)
NOTHING = replace(DOCUMENT, text="", segments=(), language=None, coverage=Coverage(0.0, 0.0))


def shape(value: Any) -> Any:
    """Names and types, the way a client sees them."""
    if isinstance(value, dict):
        return {key: shape(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [shape(entry) for entry in value]
    return type(value).__name__


def test_the_formats_are_those_we_promise() -> None:
    assert {name: (f.media_type, f.extension) for name, f in FORMATS.items()} == {
        "txt": ("text/plain", "txt"),
        "json": ("application/json", "json"),
        "verbose_json": ("application/json", "json"),
        "srt": ("application/x-subrip", "srt"),
        "vtt": ("text/vtt", "vtt"),
        "tsv": ("text/tab-separated-values", "tsv"),
    }


def test_an_unknown_format_names_the_choices() -> None:
    with pytest.raises(UnsupportedOption) as refused:
        render(DOCUMENT, "docx")
    assert refused.value.field == "format"
    assert refused.value.choices == tuple(FORMATS)


def test_the_native_document_has_the_names_others_rely_on() -> None:
    word = {"word": "str", "start": "float", "end": "float", "confidence": "float", "estimated": "bool"}
    assert shape(native_document(DOCUMENT)) == {
        "text": "str",
        "task": "str",
        "language": "str",
        "language_probability": "float",
        "duration": "float",
        "segments": [
            {
                "id": "int",
                "start": "float",
                "end": "float",
                "text": "str",
                "avg_logprob": "float",
                "no_speech_prob": "float",
                "words": [word, {**word, "confidence": "NoneType"}],
            }
        ],
        "words": [word, {**word, "confidence": "NoneType"}],
        "channels": "int",
        "coverage": {
            "speech_s": "float",
            "transcribed_s": "float",
            "gaps": [{"start": "float", "end": "float", "reason": "str"}],
        },
        "removed": [{"start": "float", "end": "float", "text": "str", "reason": "str"}],
        "warnings": [{"code": "str", "message": "str"}],
        "model": {"id": "str", "revision": "str"},
        "cache_hit": "bool",
        "cached_at": "NoneType",
        "processing_s": "float",
        "rtf": "float",
    }


def test_json_is_the_native_document() -> None:
    assert json.loads(render(DOCUMENT, "json")) == native_document(DOCUMENT)


def test_times_are_rounded_to_milliseconds() -> None:
    segment = native_document(DOCUMENT)["segments"][0]
    assert (segment["start"], segment["end"]) == (0.123, 2.0)


def test_channel_and_speaker_appear_only_when_set() -> None:
    told = replace(DOCUMENT, segments=(replace(DOCUMENT.segments[0], channel=1, speaker="A"),), channels=2)
    segment = native_document(told)["segments"][0]
    assert (segment["channel"], segment["speaker"]) == (1, "A")
    assert {"channel", "speaker"}.isdisjoint(native_document(DOCUMENT)["segments"][0])


def test_silence_has_every_name_too() -> None:
    silence = native_document(NOTHING)
    assert silence.keys() == native_document(DOCUMENT).keys()
    assert (silence["text"], silence["language"], silence["segments"], silence["words"]) == ("", None, [], [])


def test_json_never_holds_what_json_cannot_say() -> None:
    broken = replace(
        DOCUMENT,
        segments=(replace(DOCUMENT.segments[0], avg_logprob=float("-inf"), no_speech_prob=float("nan")),),
    )
    assert json.loads(render(broken, "json"))["segments"][0]["avg_logprob"] is None
    assert json.loads(render(broken, "verbose_json"))["segments"][0]["avg_logprob"] == 0.0


def test_verbose_json_has_openais_names() -> None:
    assert shape(verbose_document(DOCUMENT, words=True)) == {
        "task": "str",
        "language": "str",
        "duration": "float",
        "text": "str",
        "segments": [
            {
                "id": "int",
                "seek": "int",
                "start": "float",
                "end": "float",
                "text": "str",
                "tokens": ["int", "int"],
                "temperature": "float",
                "avg_logprob": "float",
                "compression_ratio": "float",
                "no_speech_prob": "float",
            }
        ],
        "words": [
            {"word": "str", "start": "float", "end": "float", "confidence": "float"},
            {"word": "str", "start": "float", "end": "float", "estimated": "bool"},
        ],
        "usage": {"type": "str", "seconds": "int"},
        "x_coverage": {
            "speech_s": "float",
            "transcribed_s": "float",
            "gaps": [{"start": "float", "end": "float", "reason": "str"}],
        },
    }


def test_verbose_json_shows_words_only_when_asked() -> None:
    assert "words" not in json.loads(render(DOCUMENT, "verbose_json"))
    assert len(json.loads(render(DOCUMENT, "verbose_json", words=True))["words"]) == 2
    assert json.loads(render(NOTHING, "verbose_json", words=True))["words"] == []


def test_verbose_json_never_sends_null() -> None:
    bare = replace(DOCUMENT, segments=(Segment(0, 0.0, 1.0, "Hello, world."),), language=None)
    assert "NoneType" not in str(shape(verbose_document(bare, words=True)))


@pytest.mark.parametrize(
    ("code", "task", "name"),
    [
        ("en", "transcribe", "english"),
        ("pt-BR", "transcribe", "portuguese"),
        ("ht", "transcribe", "haitian creole"),
        ("xx", "transcribe", "xx"),
        ("de", "translate", "english"),
    ],
)
def test_verbose_json_writes_the_language_in_english(code: str, task: Any, name: str) -> None:
    told = replace(DOCUMENT, language=Language(code, 1.0), task=task)
    assert verbose_document(told, words=False)["language"] == name


def test_all_of_whispers_languages_have_names() -> None:
    assert len(LANGUAGE_NAMES) == 100
    assert len(set(LANGUAGE_NAMES.values())) == 100
    assert language_name("yue") == "cantonese"


def test_txt_is_the_text() -> None:
    assert render(DOCUMENT, "txt") == "Hello, world.\n"
    assert render(NOTHING, "txt") == ""


def test_txt_names_speakers_once_per_turn() -> None:
    told = replace(
        DOCUMENT,
        segments=(
            Segment(0, 0.0, 1.0, "Good morning.", speaker="A"),
            Segment(1, 1.0, 2.0, "How are you?", speaker="A"),
            Segment(2, 2.0, 3.0, "Fine,\nthanks.", speaker="B"),
            Segment(3, 3.0, 4.0, "Good.", speaker="Ann"),
        ),
    )
    assert render(told, "txt") == (
        "Speaker A: Good morning. How are you?\nSpeaker B: Fine, thanks.\nAnn: Good.\n"
    )


def test_txt_names_channels_from_one_in_order_of_time() -> None:
    told = replace(
        DOCUMENT,
        segments=(
            Segment(0, 0.0, 1.0, "Hello?", channel=0),
            Segment(1, 2.0, 3.0, "I want a pizza.", channel=0),
            Segment(2, 1.0, 2.0, "Speaking.", channel=1),
        ),
        channels=2,
    )
    assert render(told, "txt") == "Channel 1: Hello?\nChannel 2: Speaking.\nChannel 1: I want a pizza.\n"


def test_txt_changes_speaker_inside_a_segment() -> None:
    words = (Word("Ready?", 0.0, 1.0, speaker="A"), Word("Yes.", 1.0, 2.0, speaker="B"))
    told = replace(DOCUMENT, segments=(Segment(0, 0.0, 2.0, "Ready? Yes.", words=words),))
    assert render(told, "txt") == "Speaker A: Ready?\nSpeaker B: Yes.\n"


def test_tsv_is_whispers() -> None:
    told = replace(DOCUMENT, segments=(Segment(0, 0.0004, 1.9996, " one\ttwo\nthree "), Segment(1, 2, 3, "")))
    assert render(told, "tsv") == "start\tend\ttext\n0\t2000\tone two three\n2000\t3000\t\n"
