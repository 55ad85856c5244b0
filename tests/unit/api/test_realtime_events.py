"""Frames of realtime clients, well made and not."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.api.openai_compat.realtime_events import (
    MOST_AUDIO_CHARS,
    Append,
    Clear,
    ClientEvent,
    Commit,
    Update,
    parse,
)
from voiceforge.errors import InvalidRequest


def sent(**event):
    return parse(json.dumps(event))


def test_the_events_of_a_transcription():
    audio = base64.b64encode(b"\1\2\3\4").decode()
    assert sent(type="input_audio_buffer.append", audio=audio, event_id="e1") == ClientEvent(
        "e1", Append(b"\1\2\3\4")
    )
    assert sent(type="input_audio_buffer.append", audio="").asked == Append(b"")
    assert sent(type="input_audio_buffer.commit").asked == Commit()
    assert sent(type="input_audio_buffer.clear").asked == Clear()
    assert sent(type="session.update", session={"type": "transcription"}).asked == Update(
        {"type": "transcription"}, beta=False
    )
    assert sent(type="transcription_session.update", session={}).asked == Update({}, beta=True)


@pytest.mark.parametrize(
    ("frame", "code", "field"),
    [
        ("", "invalid_request", None),
        ("hello", "invalid_request", None),
        ("[1, 2]", "invalid_request", None),
        ("[" * 100_000, "invalid_request", None),
        (b"\0\1\2\3", "invalid_request", None),
        ("{}", "missing_required_parameter", "type"),
        ('{"type": 7}', "invalid_value", "type"),
        ('{"type": "response.create"}', "invalid_value", "type"),
        ('{"type": "input_audio_buffer.append"}', "missing_required_parameter", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": 7}', "invalid_value", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "###"}', "invalid_value", "audio"),
        ('{"type": "input_audio_buffer.append", "audio": "ä==="}', "invalid_value", "audio"),
        ('{"type": "session.update"}', "missing_required_parameter", "session"),
        ('{"type": "session.update", "session": 1}', "invalid_value", "session"),
    ],
)
def test_what_cannot_be_honoured(frame, code, field):
    error = parse(frame).asked
    assert isinstance(error, InvalidRequest)
    assert (error.code, error.field) == (code, field)


def test_an_append_has_a_size():
    frame = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * (MOST_AUDIO_CHARS + 4)})
    assert isinstance(parse(frame).asked, InvalidRequest)


def test_complaints_can_be_told_apart():
    assert sent(type="nope", event_id="mine").id == "mine"
    assert sent(type="nope", event_id=7).id is None
    assert sent(type="nope", event_id="x" * 1000).id is None
    assert sent(type="nope", event_id="half \ud83d").id is None


@given(
    st.text('ab{}[]"\\日', max_size=20)
    | st.binary()
    | st.dictionaries(
        st.text('ab{}[]"\\日', max_size=20), st.text('ab{}[]"\\日', max_size=20) | st.integers()
    ).map(json.dumps)
)
def test_any_frame_is_an_event(frame):
    assert isinstance(parse(frame), ClientEvent)


@given(
    st.sampled_from(["input_audio_buffer.append", "session.update", "transcription_session.update", "x"]),
    st.dictionaries(
        st.sampled_from(["audio", "session", "event_id"]),
        st.text('ab{}[]"\\日', max_size=20) | st.lists(st.integers()),
    ),
)
def test_any_fields_under_a_known_name(name, fields):
    event = parse(json.dumps({"type": name, **fields}))
    assert isinstance(event.asked, (Append, Update, InvalidRequest))
