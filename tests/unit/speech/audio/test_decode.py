"""Any format in, 16 kHz out: told by content, right in length, pitch and level, and safe to feed anything."""

from __future__ import annotations

import io
import json
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from voiceforge.errors import (
    AudioTooLong,
    AudioTooShort,
    EmptyAudio,
    InvalidAudio,
    InvalidRequest,
    NoAudioTrack,
    UnreadableAudio,
)
from voiceforge.speech.audio.decode import AudioStream, open_audio
from voiceforge.speech.options import AudioLimits, ChannelMode, RawEncoding, RawFormat
from voiceforge.testing.recordings import Kind, encode, silent_film, tone

RATE = 16_000
SHARED = Path(os.environ.get("VOICEFORGE_TEST_SPEECH", "../shared/speech"))


def decoded(
    source: bytes | Path, raw: RawFormat | None = None, channels: ChannelMode = "mix"
) -> NDArray[np.float32]:
    with open_audio(source, raw=raw, channels=channels) as stream:
        return np.concatenate(list(stream.blocks()), axis=1)


def read_through(stream: AudioStream) -> float:
    for _ in stream.blocks():
        pass
    return stream.decoded_s


def pitch_and_level(wave: NDArray[np.float32]) -> tuple[float, float]:
    """Strongest frequency in Hz and amplitude of a sine, from the second that starts at 0.5 s."""
    middle = wave[RATE // 2 : RATE // 2 + RATE]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    return float(spectrum.argmax()), float(np.sqrt(2 * np.mean(middle**2)))


# -- every format of A1 ----------------------------------------------------------------------------------

# (kind, rate, channels, container, codec, tolerance of level, tolerance of length in s)
# Levels: LAME scales by 0.95, AMR and GSM are telephone codecs. ADTS carries the encoder's run-in.
FORMATS: list[tuple[Kind, int, int, str, str, float, float]] = [
    ("wav-u8", 44_100, 1, "wav", "pcm_u8", 0.01, 0.001),
    ("wav-s16", 8_000, 1, "wav", "pcm_s16le", 0.01, 0.001),
    ("wav-s16", 16_000, 1, "wav", "pcm_s16le", 0.001, 0.0),
    ("wav-s24", 44_100, 2, "wav", "pcm_s24le", 0.01, 0.001),
    ("wav-s32", 48_000, 6, "wav", "pcm_s32le", 0.01, 0.001),
    ("wav-f32", 96_000, 1, "wav", "pcm_f32le", 0.01, 0.001),
    ("wav-f64", 22_050, 2, "wav", "pcm_f64le", 0.01, 0.001),
    ("wav-mulaw", 8_000, 1, "wav", "pcm_mulaw", 0.01, 0.001),
    ("wav-alaw", 8_000, 1, "wav", "pcm_alaw", 0.02, 0.001),
    ("wav-gsm", 8_000, 1, "wav", "gsm_ms", 0.05, 0.02),
    ("aiff", 44_100, 1, "aiff", "pcm_s16be", 0.01, 0.001),
    ("au", 44_100, 2, "au", "pcm_s16be", 0.01, 0.001),
    ("caf", 16_000, 1, "caf", "pcm_s16be", 0.01, 0.001),
    ("flac", 44_100, 2, "flac", "flac", 0.01, 0.001),
    ("flac", 96_000, 1, "flac", "flac", 0.01, 0.001),
    ("ogg-vorbis", 16_000, 1, "ogg", "vorbis", 0.02, 0.02),
    ("ogg-opus", 48_000, 2, "ogg", "opus", 0.01, 0.02),
    ("mp3", 16_000, 1, "mp3", "mp3", 0.06, 0.02),
    ("mp3", 44_100, 2, "mp3", "mp3", 0.06, 0.02),
    ("m4a", 8_000, 1, "mov", "aac", 0.01, 0.02),
    ("m4a", 44_100, 2, "mov", "aac", 0.01, 0.02),
    ("m4a", 48_000, 6, "mov", "aac", 0.01, 0.02),
    ("m4a", 48_000, 8, "mov", "aac", 0.01, 0.02),
    ("alac", 44_100, 2, "mov", "alac", 0.01, 0.02),
    ("aac", 44_100, 2, "aac", "aac", 0.01, 0.05),
    ("amr", 8_000, 1, "amr", "amr_nb", 0.15, 0.025),
    ("webm", 48_000, 1, "matroska", "opus", 0.01, 0.02),
    ("mkv", 44_100, 2, "matroska", "pcm_s16le", 0.01, 0.001),
    ("mp4-video", 44_100, 2, "mov", "aac", 0.01, 0.02),
    ("mov-video", 48_000, 1, "mov", "pcm_s16le", 0.01, 0.02),
    ("webm-video", 48_000, 2, "matroska", "opus", 0.01, 0.02),
]


@pytest.mark.parametrize(
    ("kind", "rate", "channels", "container", "codec", "level_tolerance", "length_tolerance"),
    FORMATS,
    ids=[f"{f[0]}-{f[1]}-{f[2]}ch" for f in FORMATS],
)
def test_a_tone_keeps_its_pitch_level_and_length(
    kind: Kind,
    rate: int,
    channels: int,
    container: str,
    codec: str,
    level_tolerance: float,
    length_tolerance: float,
    tmp_path: Path,
) -> None:
    try:
        file = encode(tone(2.0, sample_rate_hz=rate, channels=channels), rate, kind)
    except LookupError as missing:
        pytest.skip(str(missing))
    misnamed = tmp_path / "notes.txt"
    misnamed.write_bytes(file)

    with open_audio(misnamed) as stream:
        info = stream.info
        assert stream.channel_count == 1
        wave = np.concatenate(list(stream.blocks()), axis=1)
        assert not stream.truncated

    assert (info.container, info.codec) == (container, codec)
    assert info.sample_rate_hz == rate
    assert info.channels == channels
    assert info.has_video == kind.endswith("video")
    assert wave.dtype == np.float32
    assert wave.shape[0] == 1
    assert wave.shape[1] / RATE == pytest.approx(2.0, abs=length_tolerance)
    hz, level = pitch_and_level(wave[0])
    assert hz == pytest.approx(1000.0, abs=1.0)
    assert level == pytest.approx(0.5, rel=level_tolerance)
    assert np.array_equal(wave, decoded(file)), "a file and its bytes decode alike"


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("s16le", lambda x: (x * 32767).astype("<i2").tobytes()),
        ("f32le", lambda x: x.astype("<f4").tobytes()),
        ("mulaw", lambda x: encode(x, 8_000, "wav-mulaw")[58:]),
        ("alaw", lambda x: encode(x, 8_000, "wav-alaw")[58:]),
    ],
)
def test_headerless_pcm(encoding: RawEncoding, pack: Callable[[NDArray[np.float32]], bytes]) -> None:
    stereo = np.concatenate(
        [tone(2.0, sample_rate_hz=8_000), tone(2.0, sample_rate_hz=8_000, hz=500)], axis=1
    )
    rows = decoded(pack(stereo), RawFormat(encoding, 8_000, 2), "split")
    assert rows.shape[1] / RATE == pytest.approx(2.0, abs=0.02)
    for row, expected in zip(rows, (1000.0, 500.0), strict=True):
        hz, level = pitch_and_level(row)
        assert hz == expected
        assert level == pytest.approx(0.5, rel=0.02)


def test_raw_bytes_that_look_like_another_format_are_read_as_declared() -> None:
    wav = encode(tone(1.0), RATE, "wav-s16")
    assert decoded(wav, RawFormat("s16le")).shape[1] == len(wav) // 2


# -- channels --------------------------------------------------------------------------------------------


def test_split_keeps_speakers_apart_and_mix_averages_them() -> None:
    left, right = (
        tone(2.0, sample_rate_hz=44_100, hz=400),
        tone(2.0, sample_rate_hz=44_100, hz=900, amplitude=0.25),
    )
    file = encode(np.concatenate([left, right], axis=1), 44_100, "flac")

    rows = decoded(file, channels="split")
    assert pitch_and_level(rows[0]) == pytest.approx((400.0, 0.5), rel=0.01)
    assert pitch_and_level(rows[1]) == pytest.approx((900.0, 0.25), rel=0.01)
    np.testing.assert_allclose(decoded(file)[0], rows.mean(axis=0), atol=1e-4)


@pytest.mark.parametrize("kind", ["wav-f32", "flac"])
def test_in_a_surround_mix_the_centre_leads_and_the_bass_channel_is_left_out(kind: Kind) -> None:
    def only(index: int) -> NDArray[np.float32]:
        sound = np.zeros((2 * RATE, 6), np.float32)
        sound[:, index] = tone(2.0)[:, 0]
        file = _surround_wav(sound) if kind == "wav-f32" else encode(sound, RATE, kind)
        wave: NDArray[np.float32] = decoded(file)[0]
        return wave

    front_left, front_right, centre, bass, back_left, _ = (
        np.sqrt(2 * np.mean(only(i)[RATE // 2 : -RATE // 2] ** 2)) for i in range(6)
    )
    assert centre > front_left > back_left > 0.05
    assert front_left == pytest.approx(front_right, rel=0.01)
    assert bass < 0.001


def test_six_channels_without_places_are_averaged_and_can_be_split() -> None:
    sound = np.zeros((2 * RATE, 6), np.float32)
    sound[:, 3] = tone(2.0)[:, 0]
    file = encode(sound, RATE, "wav-f32")  # no speaker mask: six microphones, say
    assert pitch_and_level(decoded(file)[0])[1] == pytest.approx(0.5 / 6, rel=0.01)
    rows = decoded(file, channels="split")
    assert rows.shape == (6, 2 * RATE)
    np.testing.assert_allclose(rows, sound.T, atol=1e-6)


@pytest.mark.parametrize("kind", ["wav-u8", "wav-s24", "wav-s32", "wav-f64", "alac", "mkv"])
def test_split_of_every_sample_type(kind: Kind) -> None:
    rows = decoded(encode(tone(2.0, sample_rate_hz=44_100, channels=6), 44_100, kind), channels="split")
    assert rows.dtype == np.float32
    assert [pitch_and_level(row)[0] for row in rows] == [1000.0] * 6
    assert [pitch_and_level(row)[1] for row in rows] == pytest.approx([0.5] * 6, rel=0.01)


def test_more_channels_than_may_be_split_are_refused_but_can_be_mixed() -> None:
    file = encode(tone(0.5, channels=20), RATE, "wav-s16")
    with pytest.raises(InvalidRequest, match="20 channels; at most 16"):
        open_audio(file, channels="split")
    assert decoded(file).shape == (1, RATE // 2)


# -- sources ---------------------------------------------------------------------------------------------


class Pipe(io.RawIOBase):
    """Reads once, cannot seek: what standard input is."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        return self._data.readinto(buffer)


def test_file_objects_are_read_from_their_start_and_left_open() -> None:
    for kind in ("wav-s16", "mp3", "m4a"):
        file = encode(tone(1.0), RATE, kind)
        source = io.BytesIO(file)
        source.seek(7)
        with open_audio(source) as stream:
            assert read_through(stream) == pytest.approx(1.0, abs=0.02)
        assert not source.closed


def test_a_pipe_is_read() -> None:
    with open_audio(io.BufferedReader(Pipe(encode(tone(1.0), RATE, "m4a")))) as stream:
        assert read_through(stream) == pytest.approx(1.0, abs=0.02)


def test_a_path_that_is_not_there_is_our_error_and_does_not_name_the_path(tmp_path: Path) -> None:
    with pytest.raises(UnreadableAudio) as caught:
        open_audio(tmp_path / "secret-name.wav")
    assert "secret-name" not in str(caught.value)


def test_closing_gives_the_file_back(tmp_path: Path) -> None:
    path = tmp_path / "a"
    before = open_descriptors()
    for kind in ("wav-s16", "m4a"):
        path.write_bytes(encode(tone(1.0), RATE, kind))
        with open_audio(path) as stream:
            next(stream.blocks())
    path.write_bytes(b"not audio at all, but text\n")
    with pytest.raises(UnreadableAudio):
        open_audio(path)
    assert open_descriptors() == before


def open_descriptors() -> int:
    """0 where the system does not list them."""
    listing = Path("/proc/self/fd")
    return len(list(listing.iterdir())) if listing.exists() else 0


@pytest.mark.parametrize("kind", ["wav-s16", "m4a"])
def test_memory_does_not_grow_with_length(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "long"

    def peak_bytes(seconds: float) -> int:
        path.write_bytes(encode(tone(seconds, sample_rate_hz=8_000), 8_000, kind))
        tracemalloc.start()
        try:
            with open_audio(path) as stream:
                assert read_through(stream) == pytest.approx(seconds, abs=0.2)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak_bytes(240.0) < 1.2 * peak_bytes(40.0)


def test_blocks_are_at_most_a_second_and_count_up() -> None:
    with open_audio(encode(tone(2.5), RATE, "wav-s16")) as stream:
        seen = [(block.shape, stream.decoded_s) for block in stream.blocks()]
    assert seen == [((1, RATE), 1.0), ((1, RATE), 2.0), ((1, RATE // 2), 2.5)]


# -- limits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wav-s16", "flac", "mp3", "m4a"])
def test_too_short_is_said_at_the_end(kind: Kind) -> None:
    stream = open_audio(encode(tone(0.05), RATE, kind), limits=AudioLimits(min_duration_s=0.2))
    with stream, pytest.raises(AudioTooShort, match=r"at least 0\.2 s"):
        read_through(stream)


def test_a_declared_length_over_the_limit_is_refused_before_decoding() -> None:
    for kind in ("wav-s16", "flac", "m4a"):
        with pytest.raises(AudioTooLong, match="at most 2 s"):
            open_audio(encode(tone(5.0), RATE, kind), limits=AudioLimits(max_duration_s=2.0))


def test_an_undeclared_length_is_refused_as_soon_as_it_is_passed() -> None:
    with open_audio(encode(tone(30.0), RATE, "aac"), limits=AudioLimits(max_duration_s=2.0)) as stream:
        with pytest.raises(AudioTooLong):
            read_through(stream)
        assert stream.decoded_s < 5.0


def test_exactly_the_limit_is_accepted_with_its_codec_padding() -> None:
    with open_audio(encode(tone(2.0), RATE, "aac"), limits=AudioLimits(max_duration_s=2.05)) as stream:
        assert read_through(stream) > 2.05


# -- what is not audio -----------------------------------------------------------------------------------

FOREIGN = {
    "text": (b"Dear Sir or Madam,\n" * 40, "it looks like text"),
    "utf-8 text": ("Sehr geehrte Damen und Herren – grüße\n".encode() * 40, "it looks like text"),
    "html": (b"<!doctype html><html><body>no</body></html>", "a web page"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(200), "a PNG image"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3" + bytes(range(256)), "a PDF document"),
    "zip": (b"PK\x03\x04\x14\x00\x00\x00\x08\x00" + bytes(range(256)), "a ZIP archive"),
    "locked zip": (b"PK\x03\x04\x14\x00\x01\x00\x08\x00" + bytes(range(256)), "an encrypted ZIP archive"),
    "openssl": (b"Salted__" + bytes(range(256)), "encrypted data"),
    "midi": (b"MThd\x00\x00\x00\x06\x00\x01" + bytes(64), "a MIDI file"),
    "zeros": (bytes(5000), "nothing but zero bytes"),
    "noise": (np.random.default_rng(5).bytes(20_000), "no audio format we know"),
    "hls": (b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\nfile.wav\n", "a playlist"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_audio_is_named(name: str) -> None:
    data, words = FOREIGN[name]
    with pytest.raises(UnreadableAudio, match=words):
        open_audio(data)


def test_an_empty_file() -> None:
    with pytest.raises(EmptyAudio):
        open_audio(b"")


def test_a_header_without_sound() -> None:
    header = encode(tone(0.0), RATE, "wav-s16")
    with pytest.raises(UnreadableAudio, match="a header and no audio"):
        open_audio(header)
    with pytest.raises(UnreadableAudio, match="WAV file cut off"):
        open_audio(header[:20])


def _wav(channels: int, rate: int, data: bytes, data_size: int | None = None) -> bytes:
    size = len(data) if data_size is None else data_size
    fmt = struct.pack(
        "<HHIIHH", 1, channels, rate, rate * channels * 2 & 0xFFFFFFFF, channels * 2 & 0xFFFF, 16
    )
    return (
        b"RIFF\xff\xff\xff\xffWAVEfmt "
        + struct.pack("<I", 16)
        + fmt
        + b"data"
        + struct.pack("<I", size)
        + data
    )


def _surround_wav(sound: NDArray[np.float32]) -> bytes:
    """Six channels of float with the speaker mask of 5.1."""
    data = sound.astype("<f4").tobytes()
    guid = bytes.fromhex("0300000000001000800000aa00389b71")
    fmt = (
        struct.pack("<HHIIHH", 0xFFFE, 6, RATE, RATE * 24, 24, 32) + struct.pack("<HHI", 22, 32, 0x3F) + guid
    )
    chunks = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


@pytest.mark.parametrize(
    ("channels", "rate", "words"),
    [
        (0, RATE, "0 channels"),
        (65_535, RATE, "65535 channels"),
        (1, 1_000_000_000, "1000000000 Hz"),
        (1, 1, "1 Hz"),
    ],
)
def test_absurd_shapes_are_refused(channels: int, rate: int, words: str) -> None:
    with pytest.raises(UnreadableAudio, match=words):
        open_audio(_wav(channels, rate, bytes(4000)))


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0, 0x7FFFFFFF, 0xFFFFFFFF - 36])
def test_a_wav_that_was_streamed_and_never_got_its_length(size: int) -> None:
    data = (tone(2.0)[:, 0] * 32767).astype("<i2").tobytes()
    with open_audio(_wav(1, RATE, data, size)) as stream:
        assert read_through(stream) == 2.0
        assert not stream.truncated


def test_a_film_without_sound() -> None:
    with pytest.raises(NoAudioTrack, match="no audio track"):
        open_audio(silent_film())


def test_an_encrypted_track_is_named() -> None:
    with pytest.raises(UnreadableAudio, match="encrypted"):
        open_audio(encode(tone(1.0), RATE, "m4a").replace(b"mp4a", b"enca"))


# -- damage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wav-s16", "flac", "mp3", "aac", "amr", "ogg-opus", "webm", "mkv"])
def test_of_a_cut_file_the_first_half_is_heard(kind: Kind) -> None:
    rate = 8_000 if kind == "amr" else RATE
    file = encode(tone(6.0, sample_rate_hz=rate), rate, kind)
    with open_audio(file[: len(file) // 2]) as stream:
        assert read_through(stream) == pytest.approx(3.0, abs=0.8)
        if kind in ("wav-s16", "flac", "mp3", "mkv"):  # the others do not say how long they are
            assert stream.truncated


def test_of_a_cut_m4a_with_its_index_in_front_the_first_half_is_heard(tmp_path: Path) -> None:
    file = _index_first(tmp_path, tone(6.0))
    with open_audio(file[: len(file) * 2 // 3]) as stream:
        assert 1.0 < read_through(stream) < 5.0
        assert stream.truncated


def test_a_cut_m4a_with_its_index_at_the_end_says_so() -> None:
    file = encode(tone(6.0), RATE, "m4a")
    with pytest.raises(UnreadableAudio, match="MP4 file whose index is missing"):
        open_audio(file[: len(file) // 2])


def _index_first(tmp_path: Path, samples: NDArray[np.float32]) -> bytes:
    import av

    path = tmp_path / "index-first.m4a"
    with av.open(str(path), "w", format="ipod", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples.T.copy(), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


@pytest.mark.parametrize(("kind", "rate"), [("mp3", RATE), ("mp3", 44_100), ("flac", RATE), ("aac", RATE)])
def test_damage_in_the_middle_costs_the_middle_only(kind: Kind, rate: int) -> None:
    sound = np.concatenate([tone(4.0, sample_rate_hz=rate, hz=500), tone(4.0, sample_rate_hz=rate, hz=900)])
    file = bytearray(encode(sound, rate, kind))
    middle = len(file) // 2
    file[middle : middle + 400] = np.random.default_rng(3).bytes(400)
    wave = decoded(bytes(file))[0]
    assert len(wave) / RATE == pytest.approx(8.0, abs=0.6)
    end = wave[-2 * RATE : -RATE // 2]
    assert np.abs(np.fft.rfft(end)).argmax() * RATE / len(end) == pytest.approx(900, abs=2)


def test_joined_mp3s_are_read_to_the_last() -> None:
    first, second = encode(tone(3.0, hz=500), RATE, "mp3"), encode(tone(3.0, hz=900), RATE, "mp3")
    wave = decoded(first + second)[0]
    assert len(wave) / RATE == pytest.approx(6.0, abs=0.2)
    assert pitch_and_level(wave[3 * RATE :])[0] == 900.0


def test_a_rate_that_changes_midway_is_followed() -> None:
    first = encode(tone(3.0, sample_rate_hz=44_100, hz=500, channels=2), 44_100, "mp3")
    second = encode(tone(3.0, hz=900), RATE, "mp3")
    wave = decoded(first + second)[0]
    assert len(wave) / RATE == pytest.approx(6.0, abs=0.3)
    assert pitch_and_level(wave[3 * RATE + RATE // 2 :])[0] == 900.0


def test_damaged_floats_do_not_spread() -> None:
    sound = tone(2.0)
    sound[100], sound[200], sound[300] = np.nan, np.inf, -np.inf
    wave = decoded(encode(sound, RATE, "wav-f32"))[0]
    assert np.isfinite(wave).all()
    assert pitch_and_level(wave)[1] == pytest.approx(0.5, rel=0.01)


def test_a_stereo_stream_that_turns_mono_midway_does_not_crash() -> None:
    """PyAV's queue would read memory that is not there."""
    frames = encode(tone(1.0, channels=8), RATE, "aac") + encode(tone(1.0), RATE, "aac")
    assert decoded(frames).shape[1] / RATE == pytest.approx(2.0, abs=0.3)
    assert decoded(frames, channels="split").shape[0] == 8


# -- nothing else is opened ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hls", "ffconcat", "sdp", "dash", "image sequence"])
def test_a_file_that_points_at_others_opens_none_of_them(name: str, tmp_path: Path) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(encode(tone(1.0), RATE, "wav-s16"))
    pointers = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1,\nfile:{other}\n#EXT-X-ENDLIST\n",
        "ffconcat": f"ffconcat version 1.0\nfile '{other}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "dash": f'<?xml version="1.0"?><MPD><Period><BaseURL>file:{other}</BaseURL></Period></MPD>',
        "image sequence": str(other),
    }
    for prefix in (b"", b"\x00"):  # a zero byte, so that it is not refused as mere text
        pointer = tmp_path / "pointer.m3u8"
        pointer.write_bytes(prefix + pointers[name].encode())
        with pytest.raises(InvalidAudio):
            read_through(open_audio(pointer))


def test_no_message_contains_a_path(tmp_path: Path) -> None:
    path = tmp_path / "private-name.wav"
    for data in (*(data for data, _ in FOREIGN.values()), b"", silent_film(), _wav(0, 1, b"")):
        path.write_bytes(data)
        with pytest.raises(InvalidAudio) as caught:
            open_audio(path)
        assert "private-name" not in str(caught.value)
        assert str(tmp_path) not in str(caught.value)


# -- real recordings -------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "manifest.jsonl").exists(), reason="the shared recordings are not here")
def test_real_recordings_have_the_length_their_manifest_gives() -> None:
    lines = [json.loads(line) for line in (SHARED / "manifest.jsonl").read_text().splitlines()]
    wrong = []
    for line in lines:
        if line["duration"] < 0.1:
            continue
        raw = line.get("raw")
        declared = RawFormat(raw["encoding"], raw["rate"], raw["channels"]) if raw else None
        with open_audio(SHARED / line["audio"], raw=declared) as stream:
            seconds = read_through(stream)
        if abs(seconds - line["duration"]) > 0.02:
            wrong.append((line["audio"], seconds, line["duration"]))
    assert wrong == []


# -- glimpses ----------------------------------------------------------------------------------------------


NO_WAY_ROUND: list[Kind] = ["amr", "wav-gsm"]
"""Their libraries read them from the beginning only."""


@pytest.mark.parametrize("kind", sorted({kind for kind, *_ in FORMATS} - {*NO_WAY_ROUND}))
def test_a_glimpse_shows_what_is_there(kind: Kind) -> None:
    """A minute of which only the seconds from 30 to 40 sound."""
    wave = np.zeros((60 * RATE, 1), np.float32)
    wave[30 * RATE : 40 * RATE] = tone(10.0)
    with open_audio(encode(wave, RATE, kind)) as stream:
        seen = {at_s: stream.glimpse(at_s, 0.5) for at_s in (50, 35, 10, 32, 45)}
        length = stream.glimpse(20.0, 0.5).shape
    loud = {at_s: float(np.abs(block).max(initial=0.0)) > 0.1 for at_s, block in seen.items()}
    assert loud == {50: False, 35: True, 10: False, 32: True, 45: False}
    assert length[0] == 1
    assert length[1] == pytest.approx(0.5 * RATE, abs=0.15 * RATE)


@pytest.mark.parametrize("kind", NO_WAY_ROUND)
def test_a_glimpse_shows_nothing_where_there_is_no_way_to_the_place(kind: Kind) -> None:
    with open_audio(encode(tone(60.0, sample_rate_hz=8_000), 8_000, kind)) as stream:
        try:
            seen = stream.glimpse(50.0, 0.5)
        except UnreadableAudio:
            return
        assert seen.shape == (1, 0)


def test_a_glimpse_beyond_the_end_shows_nothing_or_is_refused() -> None:
    for kind in ("wav-s16", "flac", "mp3", "m4a", "ogg-opus"):
        with open_audio(encode(tone(3.0), 16_000, kind)) as stream:
            try:
                seen = stream.glimpse(100.0, 0.5)
            except UnreadableAudio:
                continue
            assert seen.shape[1] <= RATE


def test_blocks_are_not_to_be_had_after_a_glimpse() -> None:
    with open_audio(encode(tone(3.0), 16_000, "flac")) as stream:
        stream.glimpse(1.0, 0.5)
        with pytest.raises(RuntimeError):
            next(stream.blocks())
