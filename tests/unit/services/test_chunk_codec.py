"""Chunks as bytes and back: equal to the last bit, and nothing else passes for one."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceforge.services.chunk_codec import ChunkCodec, UnreadableChunk
from voiceforge.speech.pipeline.checkpoints import Chunk, LanguageMass, Totals, WindowSpan
from voiceforge.speech.transcript.types import Segment, Word

WORDS = st.builds(Word, confidence=..., estimated=..., speaker=...)
SEGMENTS = st.builds(
    Segment,
    words=st.lists(WORDS, max_size=3).map(tuple),
    **dict.fromkeys(
        ("avg_logprob", "no_speech_prob", "channel", "speaker", "tokens", "temperature", "compression_ratio"),
        ...,
    ),
)
CHUNKS = st.builds(Chunk, segments=st.lists(SEGMENTS, max_size=3).map(tuple))
CODEC = ChunkCodec()


def chunk(text: str = "said") -> Chunk:
    return Chunk(
        index=0,
        fingerprint="f",
        first_window=0,
        start=0.0,
        end=0.1 + 0.2,
        windows=(WindowSpan(0, 0, 4_801),),
        segments=(Segment(0, 0.0, 0.1 + 0.2, text),),
        gaps=(),
        removed=(),
        totals=Totals(0.3, 0.3, 1.0, (LanguageMass("en", 0.3, 0.27),)),
    )


@settings(max_examples=50, deadline=None)
@given(CHUNKS, st.text())
def test_a_chunk_comes_back_as_it_was(made: Chunk, owner: str) -> None:
    # What is not a number equals nothing, and -0.0 equals 0.0.
    assert repr(CODEC.unpack(owner, CODEC.pack(owner, made))) == repr(made)


def test_long_ones_are_deflated() -> None:
    long = chunk("so it was said " * 2_000)
    data = CODEC.pack("job", long)
    assert len(data) < 3_000
    assert CODEC.unpack("job", data) == long


def test_a_chunk_of_another_owner_is_refused() -> None:
    with pytest.raises(UnreadableChunk, match="owner"):
        CODEC.unpack("other", CODEC.pack("job", chunk()))


@pytest.mark.parametrize("text", ["said", "so it was said " * 2_000], ids=["plain", "deflated"])
def test_bytes_that_lack_something_are_refused_without_quoting_them(text: str) -> None:
    data = CODEC.pack("job", chunk(text))
    bad = [data[:cut] for cut in range(0, len(data), 7)]
    bad += [b"9" + data[1:], data[:1] + b"x" + data[2:]]
    bad += [data.replace(b'"windows"', b'"panes"'), data[:2] + zlib.compress(b"{}")][len(text) > 100 :]
    for spoilt in bad:
        with pytest.raises(UnreadableChunk) as caught:
            CODEC.unpack("job", spoilt)
        assert "said" not in str(caught.value)
        assert caught.value.__cause__ is None
