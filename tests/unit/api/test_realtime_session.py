"""What clients set of a realtime session, in both dialects, and how the server says it back."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.api.openai_compat.realtime_session import (
    InvalidField,
    MissingField,
    Session,
    dialect_of,
)
from voiceforge.speech.options import RawFormat

NEW = Session()


def ga(**heard):
    return {"type": "transcription", "audio": {"input": heard}}


def test_what_a_session_begins_with():
    assert NEW.audio == RawFormat("s16le", 24_000)
    options = NEW.options()
    assert (options.endpointing_ms, options.interim, options.language) == (500, True, None)
    assert NEW.document("ga", session_id="sess_1", model="moonshine-tiny-en") == {
        "id": "sess_1",
        "object": "realtime.transcription_session",
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24_000},
                "noise_reduction": None,
                "transcription": {"model": "moonshine-tiny-en"},
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.5,
                    "prefix_padding_ms": 300,
                    "silence_duration_ms": 500,
                },
            }
        },
        "include": None,
    }


def test_trap_10_turn_detection_null_and_absent_differ():
    silent = NEW.changed(ga(turn_detection=None), "ga")
    assert silent.turn_detection is None
    assert silent.options().endpointing_ms is None
    assert silent.changed(ga(transcription={"language": "de"}), "ga").turn_detection is None
    assert NEW.changed(ga(transcription={"language": "de"}), "ga").turn_detection == NEW.turn_detection
    assert NEW.changed({"turn_detection": None}, "beta").turn_detection is None
    assert NEW.changed({"input_audio_format": "pcm16"}, "beta").turn_detection == NEW.turn_detection


def test_only_present_fields_change_and_null_ones_fall_back():
    first = NEW.changed(
        ga(transcription={"model": "whisper-1", "language": "German", "prompt": "Hallo"}), "ga"
    )
    second = first.changed(ga(transcription={"language": None, "keywords": ["Łódź"]}), "ga")
    assert second.transcription.model == "whisper-1"
    options = second.options()
    assert (options.language, options.prompt, options.keyterms) == (None, "Hallo", ("Łódź",))
    assert first.options().language == "de"
    assert second.changed(ga(transcription=None), "ga").transcription == NEW.transcription
    louder = NEW.changed(ga(turn_detection={"type": "server_vad", "threshold": 0.8}), "ga")
    patient = louder.changed(ga(turn_detection={"type": "server_vad", "silence_duration_ms": 900}), "ga")
    assert (patient.options().vad_threshold, patient.options().endpointing_ms) == (0.8, 900)


@pytest.mark.parametrize(
    ("wire", "beta", "audio"),
    [
        ({"type": "audio/pcm", "rate": 24_000}, "pcm16", RawFormat("s16le", 24_000)),
        ({"type": "audio/pcmu"}, "g711_ulaw", RawFormat("mulaw", 8_000)),
        ({"type": "audio/pcma"}, "g711_alaw", RawFormat("alaw", 8_000)),
    ],
)
def test_formats_in_both_dialects(wire, beta, audio):
    today = NEW.changed(ga(format=wire), "ga")
    before = NEW.changed({"input_audio_format": beta}, "beta")
    assert today == before
    assert today.audio == audio
    assert today.document("ga", session_id="s", model="m")["audio"]["input"]["format"] == wire
    assert today.document("beta", session_id="s", model="m")["input_audio_format"] == beta


def test_other_rates_are_ours():
    assert NEW.changed(ga(format={"type": "audio/pcm", "rate": 16_000}), "ga").audio.sample_rate_hz == 16_000


@pytest.mark.parametrize(("eagerness", "silence_ms"), [("low", 1200), ("auto", 800), ("high", 400)])
def test_eagerness_is_patience_in_silence(eagerness, silence_ms):
    made = NEW.changed(ga(turn_detection={"type": "semantic_vad", "eagerness": eagerness}), "ga")
    assert made.options().endpointing_ms == silence_ms
    assert made.changed(ga(turn_detection={"type": "server_vad"}), "ga") == NEW


def test_delay_thins_out_the_deltas():
    assert NEW.changed(ga(transcription={"delay": "minimal"}), "ga").options().interim_every_ms == 200
    assert not NEW.changed(ga(transcription={"delay": "xhigh"}), "ga").options().interim


def test_the_ends_of_the_scales_are_taken():
    made = NEW.changed(
        ga(turn_detection={"type": "server_vad", "threshold": 1.0, "silence_duration_ms": 0}), "ga"
    )
    assert (made.options().vad_threshold, made.options().endpointing_ms) == (0.99, 10)


def test_trap_13_what_is_unknown_or_not_ours_is_no_error():
    session = {
        "type": "realtime",
        "instructions": "Be kind.",
        "audio": {
            "input": {"noise_reduction": {"type": "near_field"}, "more": 1},
            "output": {"voice": "ash"},
        },
        "tools": [],
    }
    assert NEW.changed(session, "ga") == NEW
    assert NEW.changed(ga(turn_detection={"type": "server_vad", "idle_timeout_ms": 5000}), "ga") == NEW


@pytest.mark.parametrize(
    ("update", "dialect", "field", "kind"),
    [
        (
            ga(turn_detection={"type": "server_vad", "threshold": 7}),
            "ga",
            "session.audio.input.turn_detection.threshold",
            InvalidField,
        ),
        (
            ga(turn_detection={"type": "psychic_vad"}),
            "ga",
            "session.audio.input.turn_detection",
            InvalidField,
        ),
        (ga(format={"type": "audio/mp3"}), "ga", "session.audio.input.format", InvalidField),
        (ga(format={"rate": "fast"}), "ga", "session.audio.input.format.rate", InvalidField),
        (ga(format=[]), "ga", "session.audio.input.format", InvalidField),
        ({"audio": []}, "ga", "session.audio", InvalidField),
        ({"audio": {"input": "loud"}}, "ga", "session.audio.input", InvalidField),
        ({"include": ["everything"]}, "ga", "session.include.0", InvalidField),
        ({"input_audio_format": "mp3"}, "beta", "session.input_audio_format", InvalidField),
        ({"input_audio_format": 16}, "beta", "session.input_audio_format", InvalidField),
        (
            {"input_audio_transcription": {"language": 7}},
            "beta",
            "session.input_audio_transcription.language",
            InvalidField,
        ),
        ({"turn_detection": {"threshold": -1}}, "beta", "session.turn_detection.threshold", InvalidField),
    ],
)
def test_what_is_wrong_is_named_where_it_stands(update, dialect, field, kind):
    with pytest.raises(kind) as caught:
        NEW.changed(update, dialect)
    assert caught.value.field == field
    assert caught.value.message


def test_halves_of_characters_are_refused_for_they_could_not_be_said_back():
    with pytest.raises(InvalidField):
        NEW.changed(ga(transcription={"prompt": "half \ud83d"}), "ga")


def test_a_missing_type_is_called_missing():
    silent = NEW.changed(ga(turn_detection=None), "ga")
    with pytest.raises(MissingField):
        silent.changed(ga(turn_detection={"threshold": 0.4}), "ga")


def test_the_dialect_shows_in_the_fields():
    assert dialect_of(ga()) == "ga"
    assert dialect_of({"input_audio_format": "pcm16"}) == "beta"
    assert dialect_of({"turn_detection": None}) == "beta"
    assert dialect_of({"include": []}) is None


json_values = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        7,
        400,
        24_000,
        10**30,
        0.5,
        "",
        "x",
        "日本",
        [],
        ["en"],
        [1],
        {},
        {"type": "x"},
        [{}],
    ]
)
named = st.dictionaries(
    st.sampled_from(
        [
            "type",
            "rate",
            "threshold",
            "silence_duration_ms",
            "eagerness",
            "model",
            "language",
            "keywords",
            "delay",
        ]
    ),
    json_values | st.sampled_from(["server_vad", "semantic_vad", "audio/pcm", "audio/pcmu", "high", "en"]),
    max_size=4,
)
inputs = st.dictionaries(
    st.sampled_from(["format", "transcription", "turn_detection", "noise_reduction"]),
    named | json_values,
    max_size=4,
)


@given(
    st.dictionaries(st.sampled_from(["audio", "include", "type"]), json_values, max_size=3)
    | st.builds(lambda heard: {"audio": {"input": heard}}, inputs)
)
def test_any_update_is_taken_or_refused_with_a_place(update):
    with suppress(InvalidField):
        made = NEW.changed(update, "ga")
        made.options()
        again = NEW.changed(made.document("ga", session_id="s", model="m"), "ga")
        assert again.document("ga", session_id="s", model="m") == made.document(
            "ga", session_id="s", model="m"
        )
