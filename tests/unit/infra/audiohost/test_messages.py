"""What goes over a line comes out as it went in; what makes no sense comes out as `Garbled`."""

from __future__ import annotations

import json
import math
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from voiceforge.errors import (
    AudioTooLong,
    DependencyMissing,
    EngineFailed,
    InvalidAudio,
    InvalidRequest,
    UnsupportedOption,
    VoiceForgeError,
)
from voiceforge.infra.audiohost.error_json import error_from_json, error_to_json
from voiceforge.infra.audiohost.event_json import (
    events_from_json,
    events_to_json,
    options_from_json,
    options_to_json,
)
from voiceforge.infra.audiohost.line import Garbled, Line, LineClosed
from voiceforge.speech.audio.level import ChannelLevel
from voiceforge.speech.audio.pcm import AudioInfo
from voiceforge.speech.options import AudioLimits, RawFormat, VadOptions
from voiceforge.speech.pipeline.channel import WindowAudio
from voiceforge.speech.pipeline.listen import Ended, Heard, ListenEvent, ListenOptions, Opened
from voiceforge.speech.pipeline.outline import Outline
from voiceforge.speech.pipeline.windows import Window
from voiceforge.speech.vad.regions import Region

FINITE = st.floats(allow_nan=False, allow_infinity=False)
POSITION = st.integers(0, 1 << 40)


@pytest.fixture
def ends() -> Iterator[tuple[Line, Line]]:
    here, there = socket.socketpair()
    yield Line(here), Line(there, takes_files=True)
    here.close()
    there.close()


# -- lines


def test_a_message_arrives_with_its_arrays(ends: tuple[Line, Line]) -> None:
    here, there = ends
    samples = np.arange(500_000, dtype=np.float32)
    sender = threading.Thread(target=here.send, args=({"a": ["ü", None]}, [samples.data, memoryview(b"xyz")]))
    sender.start()
    parcel = there.receive(10)
    sender.join()
    assert parcel.message == {"a": ["ü", None]}
    assert [array.nbytes for array in parcel.arrays] == [2_000_000, 3]
    np.testing.assert_array_equal(parcel.arrays[0].view(np.float32), samples)
    assert parcel.descriptor is None


def test_an_open_file_comes_along(ends: tuple[Line, Line], tmp_path: Path) -> None:
    here, there = ends
    path = tmp_path / "recording"
    path.write_bytes(b"content")
    with path.open("rb") as file:
        here.send({"read": "this"}, descriptor=file.fileno())
    path.unlink()
    descriptor = there.receive(10).descriptor
    assert descriptor is not None
    with os.fdopen(descriptor, "rb") as received:
        assert received.read() == b"content"


def test_the_other_side_can_be_gone_or_silent(ends: tuple[Line, Line]) -> None:
    here, there = ends
    with pytest.raises(TimeoutError):
        there.receive(0.01)
    assert not there.ready()
    here.shut()
    assert there.ready()
    with pytest.raises(LineClosed):
        there.receive()
    with pytest.raises(LineClosed):
        here.send({})


def test_one_that_does_not_read_is_not_waited_for(ends: tuple[Line, Line]) -> None:
    here, _ = ends
    with pytest.raises(TimeoutError):
        here.send({}, [memoryview(bytes(50_000_000))], patience_s=0.01)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"not json",
        b"[1, 2]",
        b'"text"',
        b'{"sizes": [-1]}',
        b'{"sizes": [1e9]}',
        b'{"sizes": "many"}',
        b'{"sizes": 5}',
        b'{"sizes": [4000000000]}',
        b"\xff\xfe",
    ],
)
def test_nonsense_is_garbled(ends: tuple[Line, Line], packed: bytes) -> None:
    here, there = ends
    os.write(here.fileno(), len(packed).to_bytes(4, "little") + packed)
    with pytest.raises(Garbled):
        there.receive(1)


def test_a_message_larger_than_any_is_garbled(ends: tuple[Line, Line]) -> None:
    here, there = ends
    os.write(here.fileno(), b"\xff\xff\xff\xff")
    with pytest.raises(Garbled):
        there.receive(1)


# -- events


@st.composite
def windows(draw: st.DrawFn) -> WindowAudio:
    samples = draw(arrays.arrays(np.float32, st.integers(1, 50)))
    start = draw(POSITION)
    regions = draw(st.lists(st.builds(Region, POSITION, POSITION, FINITE, st.booleans()), max_size=3))
    return WindowAudio(draw(st.integers(0, 15)), Window(start, start + len(samples), tuple(regions)), samples)


OPENED = st.builds(
    Opened,
    st.builds(
        AudioInfo, st.text(), st.text(), st.integers(1), st.integers(1), st.none() | FINITE, st.booleans()
    ),
    st.integers(1, 16),
    st.none() | st.builds(Outline, FINITE, st.lists(FINITE).map(tuple)),
)
HEARD = st.builds(Heard, st.lists(windows(), max_size=3).map(tuple), POSITION, FINITE)
ENDED = st.builds(
    Ended,
    st.lists(st.builds(ChannelLevel, FINITE, FINITE, FINITE), min_size=1, max_size=3).map(tuple),
    st.booleans(),
)


def over_the_line(message: dict[str, Any], samples: list[memoryview]) -> tuple[list[ListenEvent], int]:
    copies = [np.frombuffer(bytes(one), np.uint8) for one in samples]
    return events_from_json(json.loads(json.dumps(message)), copies)


@given(st.none() | OPENED, st.lists(HEARD, min_size=1, max_size=4), st.none() | ENDED)
def test_events_come_back_with_those_heard_made_one(
    opened: Opened | None, heard: list[Heard], ended: Ended | None
) -> None:
    sent: list[ListenEvent] = [event for event in (opened, *heard, ended) if event is not None]
    received, count = over_the_line(*events_to_json(sent))
    assert count == len(sent)
    (one,) = (event for event in received if isinstance(event, Heard))
    assert [event for event in received if not isinstance(event, Heard)] == [
        event for event in sent if not isinstance(event, Heard)
    ]
    assert (one.settled_samples, one.decoded_s) == (heard[-1].settled_samples, heard[-1].decoded_s)
    expected = [audio for event in heard for audio in event.windows]
    assert [(a.channel, a.window) for a in one.windows] == [(a.channel, a.window) for a in expected]
    for mine, yours in zip(one.windows, expected, strict=True):
        assert mine.samples.dtype == np.float32
        assert mine.samples.tobytes() == yours.samples.tobytes()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(["opened", "heard", "ended", "windows", "events"]), JSON),
    st.lists(arrays.arrays(np.uint8, st.integers(0, 9)), max_size=2),
)
def test_whatever_is_said_is_events_or_garbled(message: dict[str, Any], samples: list[np.ndarray]) -> None:
    try:
        events, _ = events_from_json(message, samples)
    except Garbled:
        return
    assert all(isinstance(event, Opened | Heard | Ended) for event in events)


def test_a_window_with_too_few_samples_is_garbled() -> None:
    window = WindowAudio(0, Window(0, 10, ()), np.zeros(10, np.float32))
    message, _ = events_to_json([Heard((window,), 10, 1.0)])
    for wrong in ([], [np.zeros(39, np.uint8)], [np.zeros(40, np.uint8)] * 2):
        with pytest.raises(Garbled):
            events_from_json(message, wrong)


@pytest.mark.parametrize(
    "options",
    [
        ListenOptions(30.0, 12.0),
        ListenOptions(1.5, 1.0, RawFormat("mulaw", 8_000, 2), "split", False, AudioLimits(1.0, None)),
        ListenOptions(30.0, 30.0, limits=AudioLimits(0.0, 5.5), vad=VadOptions(0.25, 1, 2, 3)),
    ],
)
def test_options_come_back(options: ListenOptions) -> None:
    assert options_from_json(json.loads(json.dumps(options_to_json(options)))) == options


# -- errors


@pytest.mark.parametrize(
    "error",
    [
        AudioTooLong("the audio lasts 5 s"),
        InvalidAudio("no"),
        InvalidRequest("too many", field="channels"),
        UnsupportedOption("unknown", field="encoding", choices=("a", "b")),
        DependencyMissing("install it", retry_after_s=math.pi),
    ],
)
def test_errors_come_back_as_what_they_were(error: VoiceForgeError) -> None:
    received = error_from_json(json.loads(json.dumps(error_to_json(error))))
    assert type(received) is type(error)
    assert vars(received) == vars(error)
    assert str(received) == str(error)


@pytest.mark.parametrize("told", [{}, {"code": "engine_failed"}, {"code": []}, {"code": "audio_empty"}])
def test_other_errors_are_garbled(told: dict[str, Any]) -> None:
    with pytest.raises(Garbled):
        error_from_json(told)


def test_only_errors_that_listening_has_come_over_a_line() -> None:
    with pytest.raises(Garbled):
        error_from_json(error_to_json(EngineFailed("no")))
