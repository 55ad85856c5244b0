"""Encoded audio that comes piece by piece: given as soon as it can be, whole at the end, safe for all."""

import contextlib
import struct
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voiceforge.errors import InvalidAudio, NoAudioTrack, UnreadableAudio
from voiceforge.speech.audio.conform import Rows
from voiceforge.speech.audio.read_pushed import Feed, decode_pushed
from voiceforge.speech.audio.stream_decoder import LocalStreamDecoders
from voiceforge.speech.options import EncodedFormat
from voiceforge.testing.recordings import KINDS, encode, silent_film, tone

SECONDS = 3.0
STREAMED = ("flac", "ogg-opus", "ogg-vorbis", "mp3", "aac", "webm", "mkv", "wav-s16", "au")


class Client:
    """Sends a recording in pieces; remembers how much it had sent when the first sound came back."""

    def __init__(self, audio: bytes, piece_bytes: int) -> None:
        self._pieces = [audio[i : i + piece_bytes] for i in range(0, len(audio), piece_bytes)]
        self._sent = 0
        self.first_after: int | None = None
        self.rows: list[Rows] = []

    def exchange(self, rows: list[Rows]) -> Sequence[bytes] | None:
        self.rows += rows
        if rows and self.first_after is None:
            self.first_after = self._sent
        if self._sent == len(self._pieces):
            return None
        self._sent += 1
        return [self._pieces[self._sent - 1]]

    @property
    def pieces(self) -> int:
        return len(self._pieces)


def decoded(client: Client, encoded: EncodedFormat | None = None, *, split: bool = False) -> Rows:
    feed = Feed((), client.exchange)
    decode_pushed(feed, encoded, split=split)
    rows = [*client.rows, *feed.rest()]
    return np.concatenate(rows, axis=1) if rows else np.zeros((1, 0), np.float32)


@pytest.mark.parametrize("kind", STREAMED)
def test_nothing_is_lost_and_the_first_sound_comes_before_the_last_byte(kind: str) -> None:
    assert kind in KINDS
    rate_hz = 48_000
    try:
        audio = encode(tone(SECONDS, sample_rate_hz=rate_hz), rate_hz, kind)  # type: ignore[arg-type]
    except LookupError:
        pytest.skip("no encoder here")
    client = Client(audio, max(1, len(audio) // 100))
    rows = decoded(client)
    assert rows.shape[1] == pytest.approx(SECONDS * 16_000, abs=16_000 * 0.15)
    assert client.first_after is not None
    assert client.first_after < client.pieces


def test_channels_stay_apart_where_that_is_wished() -> None:
    samples = np.repeat(tone(1.0, sample_rate_hz=48_000), 2, axis=1)
    audio = encode(samples, 48_000, "flac")
    assert decoded(Client(audio, 1000), split=True).shape[0] == 2
    assert decoded(Client(audio, 1000), split=False).shape[0] == 1


def test_a_codec_that_was_promised_is_not_looked_for_elsewhere() -> None:
    with pytest.raises(UnreadableAudio):
        decoded(Client(encode(tone(1.0, sample_rate_hz=48_000), 48_000, "mp3"), 1000), EncodedFormat("flac"))


def test_a_film_without_sound_says_so() -> None:
    with pytest.raises((NoAudioTrack, UnreadableAudio)):
        decoded(Client(silent_film(), 1000))


def test_a_kind_of_samples_that_nobody_converts_is_the_audio_s_fault() -> None:
    samples = bytes(8 * 1600)
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(samples), b"WAVE", b"fmt ", 16, 1, 1, 16_000,
                       128_000, 8, 64, b"data", len(samples))  # fmt: skip
    with pytest.raises(UnreadableAudio, match="s64"):
        decoded(Client(head + samples, 1000))


def test_whoever_waits_for_a_decoder_hears_of_whatever_broke_it() -> None:
    no_format: Any = object()
    heard: list[Exception] = []

    def ask() -> None:
        try:
            LocalStreamDecoders().open(no_format, split=False).feed([b"anything"])
        except Exception as error:
            heard.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(30)
    assert [type(error) for error in heard] == [AttributeError]


def test_what_was_cut_off_counts_as_far_as_it_goes() -> None:
    audio = encode(tone(SECONDS, sample_rate_hz=48_000), 48_000, "webm")
    assert decoded(Client(audio[: len(audio) // 2], 500)).shape[1] > 16_000


def test_nothing_at_all_is_no_mistake() -> None:
    assert decoded(Client(b"", 1)).shape[1] == 0


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=3000), st.sampled_from([None, "flac", "ogg-opus", "opus"]), st.integers(1, 700))
def test_any_bytes_are_audio_or_one_of_our_errors(junk: bytes, codec: str | None, piece_bytes: int) -> None:
    encoded = EncodedFormat(codec) if codec else None  # type: ignore[arg-type]
    with contextlib.suppress(InvalidAudio):
        assert decoded(Client(junk, piece_bytes), encoded).dtype == np.float32


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5_000), st.binary(min_size=1, max_size=200))
def test_damage_in_the_middle_costs_no_more_than_an_error(at: int, damage: bytes) -> None:
    audio = encode(tone(1.0, sample_rate_hz=48_000), 48_000, "webm")
    spoilt = audio[:at] + damage + audio[at + len(damage) :]
    with contextlib.suppress(InvalidAudio):
        assert decoded(Client(spoilt, 1000)).shape[1] <= 2 * 16_000
