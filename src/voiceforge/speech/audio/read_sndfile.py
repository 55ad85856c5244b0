"""WAV, AIFF, FLAC, MP3 and headerless PCM through libsndfile: the fastest where it applies.

The only module that decodes with soundfile. It refuses what libsndfile reads less well than libav
(more than two channels: it does not say which is which), and the caller then asks libav.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from voiceforge.errors import UnreadableAudio
from voiceforge.speech.audio.forgiving_file import ForgivingFile
from voiceforge.speech.audio.pcm import AudioInfo, NotForThisReader, Pcm, check_shape, without_wild_values
from voiceforge.speech.audio.promised import wav_is_cut, wav_runs_to_its_end
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.options import RawEncoding, RawFormat

if TYPE_CHECKING:
    import soundfile

_READ_S = 8
"""Where it is resampled: what comes of more at once no longer fits the processor's cache."""
_MAX_READ_FRAMES = 1 << 19
_UNKNOWN_LENGTH = 1 << 62
"""libsndfile's count for a FLAC whose header gives none is 2**63 - 1."""

_CONTAINERS = {"WAVEX": "wav", "RF64": "wav"}
_CODECS = {
    "PCM_U8": "pcm_u8",
    "PCM_S8": "pcm_s8",
    "PCM_16": "pcm_s16",
    "PCM_24": "pcm_s24",
    "PCM_32": "pcm_s32",
    "FLOAT": "pcm_f32",
    "DOUBLE": "pcm_f64",
    "ULAW": "pcm_mulaw",
    "ALAW": "pcm_alaw",
    "GSM610": "gsm_ms",
    "MS_ADPCM": "adpcm_ms",
    "IMA_ADPCM": "adpcm_ima_wav",
    "MPEG_LAYER_III": "mp3",
}
_RAW: dict[RawEncoding, tuple[str, str]] = {
    "s16le": ("PCM_16", "LITTLE"),
    "s32le": ("PCM_32", "LITTLE"),
    "f32le": ("FLOAT", "LITTLE"),
    "mulaw": ("ULAW", "FILE"),
    "alaw": ("ALAW", "FILE"),
}


class SndfileReader:
    """Reads forward only, or glimpses.

    soundfile seeks after every read of a seekable file. For FLAC that costs time, for MP3 it makes
    the decoder lose the bits it carries from frame to frame; so the file says it cannot seek.

    Args:
        file: seekable, `size` bytes long; an unbuffered one is read natively, by its descriptor.

    Raises: NotForThisReader; UnreadableAudio for a rate or channel count that no recording has.
    """

    def __init__(self, file: BinaryIO, size: int, raw: RawFormat | None = None) -> None:
        import soundfile

        self._wav_cut = raw is None and wav_is_cut(file, size)
        # Natively only where no Python buffer keeps its own idea of the position.
        source: int | ForgivingFile
        if isinstance(file, io.FileIO):
            file.seek(0)
            source = file.fileno()
        else:
            source = ForgivingFile(file, size)
        try:
            if raw is None:
                self._sound: soundfile.SoundFile = soundfile.SoundFile(source, closefd=False)
            else:
                subtype, endian = _RAW[raw.encoding]
                self._sound = soundfile.SoundFile(
                    source,
                    samplerate=raw.sample_rate_hz,
                    channels=raw.channels,
                    format="RAW",
                    subtype=subtype,
                    endian=endian,
                    closefd=False,
                )
        except Exception as error:  # whatever it says about foreign bytes, they are not for it
            raise NotForThisReader from error
        self._sound.seekable = _never
        sound, rate_hz, channels = self._sound, self._sound.samplerate, self._sound.channels
        try:
            check_shape(rate_hz, channels)
            if raw is None and (channels > 2 or (sound.frames == 0 and wav_runs_to_its_end(file, size))):
                raise NotForThisReader
        except BaseException:
            self.close()
            raise
        container, subtype = sound.format, sound.subtype
        self._declared = None if sound.frames >= _UNKNOWN_LENGTH else int(sound.frames)
        self._compressed = container in ("MP3", "FLAC")
        self._floats = subtype in ("FLOAT", "DOUBLE") or container == "MP3"
        self.info = AudioInfo(
            container="raw" if raw else _CONTAINERS.get(container, container.lower()),
            codec=_codec_name(container, subtype, sound.endian),
            sample_rate_hz=rate_hz,
            channels=channels,
            duration_s=None if self._declared is None else self._declared / rate_hz,
        )
        self.duration_trusted = self._declared is not None and container != "MP3"
        self.truncated = False
        self.unread = False

    def pieces(self) -> Iterator[Pcm]:
        sound, rate = self._sound, self.info.sample_rate_hz
        want = _MAX_READ_FRAMES if rate == SAMPLE_RATE_HZ else min(_READ_S * rate, _MAX_READ_FRAMES)
        got = 0
        broke_off = False
        while True:
            try:
                samples = sound.read(want, dtype="float32", always_2d=True)
            except Exception:  # libsndfile stops at the first damage; the frames before it were given out
                broke_off = True
                break
            got += len(samples)
            if len(samples):
                yield Pcm(without_wild_values(samples) if self._floats else samples, rate)
            if len(samples) < want:
                break
        short = self._declared is not None and got < self._declared
        self.truncated = broke_off or short or self._wav_cut
        self.unread = broke_off or (short and self._compressed)

    def glimpse(self, at_s: float, length_s: float) -> Iterator[Pcm]:
        rate = self.info.sample_rate_hz
        try:
            self._sound.seek(int(at_s * rate))
            samples = self._sound.read(round(length_s * rate), dtype="float32", always_2d=True)
        except Exception as error:  # damage, or a place that is not there
            raise UnreadableAudio("the file cannot be read there") from error
        if len(samples):
            yield Pcm(without_wild_values(samples) if self._floats else samples, rate)

    def close(self) -> None:
        self._sound.close()


def _never() -> bool:
    return False


def _codec_name(container: str, subtype: str, endian: str) -> str:
    if container == "FLAC":
        return "flac"
    name = _CODECS.get(subtype, subtype.lower())
    if name.startswith(("pcm_s16", "pcm_s24", "pcm_s32", "pcm_f")):
        big = endian == "BIG" or (endian == "FILE" and container == "AIFF")
        return name + ("be" if big else "le")
    return name
