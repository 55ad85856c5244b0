"""Headerless PCM in pieces of any size: the same samples as from a file, however it is cut."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.pushed_pcm import PushedPcm
from voiceforge.speech.options import RAW_ENCODINGS, RawEncoding, RawFormat

BYTES = np.random.default_rng(7).integers(0, 256, 48_000, dtype=np.uint8).tobytes()
FLOATS = np.random.default_rng(8).uniform(-1, 1, 12_000).astype("<f4").tobytes()


def content(encoding: RawEncoding) -> bytes:
    return FLOATS if encoding == "f32le" else BYTES


def pushed(pieces: list[bytes], raw: RawFormat, rows: int) -> np.ndarray:
    pcm = PushedPcm(raw, rows)
    blocks = [block for piece in pieces for block in pcm.push(piece)] + pcm.flush()
    return np.concatenate(blocks, axis=1)


@pytest.mark.parametrize("encoding", RAW_ENCODINGS)
@pytest.mark.parametrize(("rate_hz", "channels"), [(16_000, 1), (8_000, 2), (44_100, 1), (24_000, 3)])
@pytest.mark.parametrize("split", [False, True])
def test_it_is_what_a_file_of_the_same_bytes_says(
    encoding: RawEncoding, rate_hz: int, channels: int, split: bool
) -> None:
    raw = RawFormat(encoding, rate_hz, channels)
    with open_audio(content(encoding), raw=raw, channels="split" if split else "mix") as stream:
        file = np.concatenate(list(stream.blocks()), axis=1)
    ours = pushed([content(encoding)], raw, channels if split else 1)
    assert ours.dtype == np.float32
    assert ours.shape == file.shape
    np.testing.assert_allclose(ours, file, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, len(BYTES)), max_size=30),
    encoding=st.sampled_from(["s16le", "s32le", "mulaw"]),
    channels=st.integers(1, 3),
)
def test_where_it_is_cut_does_not_matter(cuts: list[int], encoding: RawEncoding, channels: int) -> None:
    raw = RawFormat(encoding, 16_000, channels)
    edges = [0, *sorted(cuts), len(BYTES)]
    pieces = [BYTES[first:last] for first, last in itertools.pairwise(edges)]
    np.testing.assert_array_equal(pushed(pieces, raw, channels), pushed([BYTES], raw, channels))


def test_a_resampler_does_not_hear_the_cuts_either() -> None:
    raw = RawFormat("s16le", 8_000)
    pieces = [BYTES[first : first + 333] for first in range(0, len(BYTES), 333)]
    np.testing.assert_allclose(pushed(pieces, raw, 1), pushed([BYTES], raw, 1), atol=1e-6)


def test_values_beyond_all_sense_become_silence() -> None:
    wild = np.array([np.nan, np.inf, -np.inf, 0.5], "<f4").tobytes()
    assert pushed([wild], RawFormat("f32le"), 1).tolist() == [[0.0, 0.0, 0.0, 0.5]]
