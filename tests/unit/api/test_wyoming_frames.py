"""The frame parser: whatever arrives, in whatever pieces."""

import io
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wyoming.event import read_event

from voiceforge.api.wyoming_server.frames import BadFrame, Frame, FrameLimits, FrameReader, encode

SMALL = FrameLimits(line_bytes=200, data_bytes=100, payload_bytes=50)


def frame_bytes(kind, data=None, payload=b"", *, inline=False):
    head = {"type": kind}
    body = b""
    if data and inline:
        head["data"] = data
    elif data:
        body = json.dumps(data).encode()
        head["data_length"] = len(body)
    if payload:
        head["payload_length"] = len(payload)
    return json.dumps(head).encode() + b"\n" + body + payload


def read(data, limits=None):
    return list(FrameReader(limits).feed(data))


def test_a_frame_with_everything():
    data = b'{"type": "a", "version": "1", "data": {"x": 1, "y": 1}, "data_length": 8, "payload_length": 3}\n'
    assert read(data + b'{"y": 2}' + b"\0\n\1") == [Frame("a", {"x": 1, "y": 2}, b"\0\n\1")]


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"hello\n",
        b"[]\n",
        b"7\n",
        b"\xff\xfe\n",
        b"{}\n",
        b'{"type": 7}\n',
        b'{"type": "a", "data": []}\n',
        b'{"type": "a", "data_length": -1}\n',
        b'{"type": "a", "data_length": "8"}\n',
        b'{"type": "a", "payload_length": 1.5}\n',
        b'{"type": "a", "payload_length": true}\n',
        b'{"type": "a", "data_length": 2}\n[]',
        b'{"type": "a", "data_length": 2}\nxx',
        b"[" * 199 + b"\n",
        b'{"type": "a", "data_length": 101}\n',
        b'{"type": "a", "payload_length": 51}\n',
        b'{"type": "a", "payload_length": 1000000000000}\n',
        b"x" * 201,
    ],
)
def test_what_is_no_frame(line):
    with pytest.raises(BadFrame):
        read(line, SMALL)


def test_the_limits_themselves_are_allowed():
    assert read(frame_bytes("a", payload=b"x" * 50), SMALL) == [Frame("a", {}, b"x" * 50)]
    assert FrameReader(SMALL).feed(b"x" * 200) is not None


def test_what_we_write_the_package_reads():
    event = read_event(io.BytesIO(encode("transcript", {"text": "Grüße, 日本"})))
    assert (event.type, event.data) == ("transcript", {"text": "Grüße, 日本"})
    assert read_event(io.BytesIO(encode("transcript-stop"))).data == {}


plain = st.dictionaries(
    st.text('ab\n"日', max_size=5), st.text('ab\n"日', max_size=5) | st.integers(), max_size=3
)
frames = st.tuples(st.text('ab\n"日', max_size=8), plain, st.binary(max_size=40), st.booleans())


@given(st.lists(frames, max_size=4), st.lists(st.integers(1, 60), max_size=30))
def test_any_frames_cut_anywhere_come_out_whole(made, cuts):
    stream = b"".join(frame_bytes(kind, data, payload, inline=inline) for kind, data, payload, inline in made)
    reader, got, at = FrameReader(), [], 0
    for size in [*cuts, len(stream)]:
        got += reader.feed(stream[at : at + size])
        at += size
    assert got == [Frame(kind, data, payload) for kind, data, payload, _ in made]


@given(st.lists(st.binary(max_size=80), max_size=8))
@example([b'{"type": "x", "data_length": 3}\n', b"{}", b"\n"])
def test_rubbish_ends_in_frames_or_a_complaint(pieces):
    reader = FrameReader(SMALL)
    try:
        for piece in pieces:
            assert all(isinstance(frame, Frame) for frame in reader.feed(piece))
    except BadFrame:
        return
