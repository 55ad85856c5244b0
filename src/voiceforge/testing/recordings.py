"""Recordings in every format we read, made on the spot: samples → the bytes of a file.

For tests and benchmarks. Raises `LookupError` where this machine's libraries lack an encoder.
"""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Kind = Literal[
    "wav-u8",
    "wav-s16",
    "wav-s24",
    "wav-s32",
    "wav-f32",
    "wav-f64",
    "wav-mulaw",
    "wav-alaw",
    "wav-gsm",
    "aiff",
    "au",
    "caf",
    "flac",
    "ogg-vorbis",
    "ogg-opus",
    "mp3",
    "m4a",
    "alac",
    "aac",
    "amr",
    "webm",
    "mkv",
    "mp4-video",
    "mov-video",
    "webm-video",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

_SNDFILE: dict[str, tuple[str, str]] = {
    "wav-u8": ("WAV", "PCM_U8"),
    "wav-s16": ("WAV", "PCM_16"),
    "wav-s24": ("WAV", "PCM_24"),
    "wav-s32": ("WAV", "PCM_32"),
    "wav-f32": ("WAV", "FLOAT"),
    "wav-f64": ("WAV", "DOUBLE"),
    "wav-mulaw": ("WAV", "ULAW"),
    "wav-alaw": ("WAV", "ALAW"),
    "wav-gsm": ("WAV", "GSM610"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg-vorbis": ("OGG", "VORBIS"),
}
_LIBAV: dict[str, tuple[str, str, str | None]] = {
    "ogg-opus": ("ogg", "libopus", None),
    "mp3": ("mp3", "libmp3lame", None),
    "m4a": ("ipod", "aac", None),
    "alac": ("ipod", "alac", None),
    "aac": ("adts", "aac", None),
    "amr": ("amr", "libopencore_amrnb", None),
    "webm": ("webm", "libopus", None),
    "mkv": ("matroska", "pcm_s16le", None),
    "mp4-video": ("mp4", "aac", "mpeg4"),
    "mov-video": ("mov", "pcm_s16le", "mpeg4"),
    "webm-video": ("webm", "libopus", "libvpx"),
}
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
_CHUNK = 4096
"""libsndfile's Vorbis encoder overflows the stack on long writes."""


def tone(
    seconds: float,
    *,
    sample_rate_hz: int = 16_000,
    hz: float = 1000.0,
    amplitude: float = 0.5,
    channels: int = 1,
) -> NDArray[np.float32]:
    """A sine, shape (n_samples, channels)."""
    time = np.arange(round(seconds * sample_rate_hz)) / sample_rate_hz
    wave = (amplitude * np.sin(2 * np.pi * hz * time)).astype(np.float32)
    return np.repeat(wave[:, np.newaxis], channels, axis=1)


def encode(samples: NDArray[np.float32], sample_rate_hz: int, kind: Kind, **options: str) -> bytes:
    """The bytes of a file.

    Args:
        samples: float32, shape (n_samples, n_channels), in [-1, 1]; six channels are 5.1, eight 7.1.
        options: for libav's container, e.g. movflags="faststart".
    """
    if kind in _SNDFILE:
        return _by_sndfile(samples, sample_rate_hz, *_SNDFILE[kind])
    return _by_libav(samples, sample_rate_hz, *_LIBAV[kind], options)


def silent_film(seconds: float = 1.0) -> bytes:
    """An MP4 with a picture and no sound."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        _add_picture(container, "mpeg4", seconds)
    return out.getvalue()


def _by_sndfile(samples: NDArray[np.float32], rate_hz: int, container: str, subtype: str) -> bytes:
    import soundfile

    out = io.BytesIO()
    with soundfile.SoundFile(
        out, "w", rate_hz, samples.shape[1], format=container, subtype=subtype, closefd=False
    ) as file:
        for start in range(0, len(samples), _CHUNK):
            file.write(samples[start : start + _CHUNK])
    return out.getvalue()


def _by_libav(
    samples: NDArray[np.float32],
    rate_hz: int,
    container_name: str,
    codec: str,
    picture: str | None,
    options: dict[str, str],
) -> bytes:
    import av

    out = io.BytesIO()
    try:
        with av.open(out, "w", format=container_name, options=options) as container:
            layout = _LAYOUTS[samples.shape[1]]
            sound: Any = container.add_stream(codec, rate=rate_hz, layout=layout)
            if picture:
                _add_picture(container, picture, len(samples) / rate_hz)
            fit = av.AudioResampler(
                format=sound.codec_context.format.name, layout=layout, rate=rate_hz, frame_size=1024
            )
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
            frame.sample_rate, frame.pts = rate_hz, 0
            for ready in (*fit.resample(frame), *fit.resample(None)):
                container.mux(sound.encode(ready))
            container.mux(sound.encode(None))
    except av.codec.codec.UnknownCodecError as error:
        raise LookupError(f"no encoder for {codec} here") from error
    return out.getvalue()


def _add_picture(container: Any, codec: str, seconds: float) -> None:
    import av

    rate = 10
    stream = container.add_stream(codec, rate=rate)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for index in range(max(1, round(seconds * rate))):
        picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 60, np.uint8), format="rgb24")
        picture.pts, picture.time_base = index, Fraction(1, rate)
        container.mux(stream.encode(picture))
    container.mux(stream.encode(None))
