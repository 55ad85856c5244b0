import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wyoming.event import Event
from wyoming.info import Info

from voiceforge.api.wyoming_server.convert import AudioShape, Samples, Wish, info
from voiceforge.errors import InvalidRequest, UnsupportedOption, VoiceForgeError
from voiceforge.services.access import OWNER
from voiceforge.speech.options import RawFormat
from voiceforge.testing.scripted_services import FAKE_INFO

HOME_ASSISTANT = {"rate": 16_000, "width": 2, "channels": 1}


def test_home_assistants_audio_passes_as_it_is():
    shape = AudioShape.of(HOME_ASSISTANT)
    assert shape.raw() == RawFormat("s16le", 16_000, 1)
    assert Samples(shape).of(b"\1\2\3") == b"\1\2\3"


@pytest.mark.parametrize(
    ("width", "payload", "encoding", "made"),
    [
        (1, struct.pack("<3b", -128, 0, 127), "s16le", (-32768, 0, 32512)),
        (2, struct.pack("<2h", -5, 7), "s16le", (-5, 7)),
        (3, b"\x01\x02\x03\xff\xff\xff", "s16le", (0x0302, -1)),
    ],
)
def test_other_widths(width, payload, encoding, made):
    shape = AudioShape(44_100, width, 2)
    assert shape.raw() == RawFormat(encoding, 44_100, 2)
    assert struct.unpack(f"<{len(made)}h", Samples(shape).of(payload)) == made
    assert AudioShape(8_000, 4, 1).raw() == RawFormat("s32le", 8_000, 1)


@given(st.integers(1, 4), st.binary(max_size=40), st.lists(st.integers(0, 7), max_size=20))
def test_payloads_may_be_cut_anywhere(width, data, cuts):
    shape = AudioShape(16_000, width, 1)
    whole, samples, made, at = Samples(shape).of(data), Samples(shape), b"", 0
    for size in [*cuts, len(data)]:
        made += samples.of(data[at : at + size])
        at += size
    assert made == whole


@pytest.mark.parametrize(
    "data",
    [
        {},
        {**HOME_ASSISTANT, "rate": "16000"},
        {**HOME_ASSISTANT, "rate": 0},
        {**HOME_ASSISTANT, "width": 0},
        {**HOME_ASSISTANT, "width": 5},
        {**HOME_ASSISTANT, "channels": -1},
        {**HOME_ASSISTANT, "channels": True},
    ],
)
def test_shapes_there_are_not(data):
    with pytest.raises((InvalidRequest, UnsupportedOption)):
        AudioShape.of(data)


def test_what_is_asked_for():
    wish = Wish.of(
        {
            "name": "whisper-1",
            "language": "en-US",
            "context": {"conversation": 7},
            "vad_sensitivity": "relaxed",
            "transcript_names": ["Ada", " Łukasz ", ""],
            "transcript_terms": ["lamp", "Ada"],
        }
    )
    request = wish.request(AudioShape.of(HOME_ASSISTANT), OWNER)
    assert request.model == "whisper-1"
    assert request.options.language == "en"
    assert request.options.keyterms == ("Ada", "Łukasz", "lamp")
    assert request.options.endpointing_ms is None


def test_nothing_needs_to_be_asked_for():
    request = Wish.of({"language": "auto", "name": "", "vad_sensitivity": "odd"}).request(
        AudioShape(16_000, 2, 1), OWNER
    )
    assert (request.model, request.options.language) == (None, None)


@given(
    st.dictionaries(
        st.sampled_from(["name", "language", "vad_sensitivity", "transcript_names", "transcript_terms"]),
        st.none()
        | st.text('ab\n"日', max_size=5)
        | st.integers()
        | st.lists(st.text('ab\n"日', max_size=3) | st.integers(), max_size=3),
    )
)
def test_any_wish_is_understood_or_refused(data):
    try:
        Wish.of(data).request(AudioShape(16_000, 2, 1), OWNER)
    except VoiceForgeError:
        return


def test_our_models_as_wyoming_lists_them():
    other = replace(FAKE_INFO, id="other", languages=("de", "en"))
    made = Info.from_event(Event("info", dict(info([FAKE_INFO, other], "other", "1.2.3"))))
    [program] = made.asr
    assert program.installed
    assert program.supports_transcript_streaming
    assert [(model.name, model.languages) for model in program.models] == [
        ("other", ["de", "en"]),
        ("fake", ["en"]),
    ]
