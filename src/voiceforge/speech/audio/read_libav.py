"""Everything else through libav (PyAV), and what libsndfile gives up on.

Only this module and `read_pushed` decode with av. Demuxers and decoders are allow-listed: a playlist, a
session description or a concat script is not a recording, and none may make us open a second file or a
connection. Undecodable packets are passed over, so damage costs the damaged part and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from voiceforge.errors import NoAudioTrack, UnreadableAudio, VoiceForgeError
from voiceforge.speech.audio.forgiving_file import ForgivingFile
from voiceforge.speech.audio.pcm import AudioInfo, NotForThisReader, Pcm, check_shape, to_float32
from voiceforge.speech.audio.promised import mp3_is_cut

if TYPE_CHECKING:
    from av import AudioFifo, AudioResampler
    from av.audio.frame import AudioFrame
    from av.audio.layout import AudioLayout
    from av.audio.stream import AudioStream
    from av.container import InputContainer

_DEMUXERS = "aac,ac3,aiff,amr,asf,au,avi,caf,eac3,flac,flv,gsm,matroska,mov,mp3,mpeg,mpegts,ogg,w64,wav,wv"
_DECODERS = (
    "aac,aac_latm,ac3,eac3,alac,amrnb,amrwb,libopencore_amrnb,libopencore_amrwb,dca,flac,gsm,gsm_ms,"
    "mp1,mp1float,mp2,mp2float,mp3,mp3float,opus,libopus,speex,libspeex,vorbis,libvorbis,wavpack,"
    "wmav1,wmav2,wmapro,wmavoice,wmalossless,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_swf,"
    "adpcm_yamaha,g722,g726,g726le,g723_1,g729,nellymoser,pcm_alaw,pcm_mulaw,pcm_bluray,pcm_dvd,"
    "pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_lxf,pcm_s8,pcm_s16be,pcm_s16le,pcm_s24be,pcm_s24le,"
    "pcm_s32be,pcm_s32le,pcm_s64be,pcm_s64le,pcm_u8,pcm_s16be_planar,pcm_s16le_planar,"
    "pcm_s24le_planar,pcm_s32le_planar,pcm_s8_planar"
)
_TRUSTED_DURATION = ("mov", "matroska", "wav", "flac", "aiff", "caf", "w64")
"""Containers whose duration is written down; the others' is guessed from the bit rate."""
_DECLARES_PADDING = ("mov", "ogg")
_MAX_PADDING_S = 0.2
"""Codecs fill their last frame; at 8 kHz an AAC frame is 128 ms."""
_ENCRYPTED_TAGS = ("enca", "drms", "aavd", "p608")
TOO_MANY_PLANES = 8
"""From here on PyAV 18 reads past the end of libav's list of planes, and the process dies."""
_BUFFER_BYTES = 1 << 16
_GLIMPSE_PACKETS = 2_000
"""Where so many of them hold nothing of a place, it is not to be found."""
_NO_PLACES = ("amr",)
"""Where libav takes us somewhere else."""
_PIECE_S = 2
"""Decoders give frames of 20 ms, too small to resample one by one."""

_SURROUND_WEIGHTS = {"FC": 1.0, "FL": 0.7071, "FR": 0.7071, "LFE": 0.0, "LFE2": 0.0}
_SURROUND_REST = 0.5
"""ITU-R BS.775 downmix: dialogue sits in the centre, effects at the back, no speech in the LFE channel."""


class LibavReader:
    """Args:
        file: seekable, `size` bytes long.

    Raises: NotForThisReader; UnreadableAudio where it is sure that nobody reads this; NoAudioTrack.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        mp3_cut = mp3_is_cut(file, size)
        try:
            self._container = open_container(ForgivingFile(file, size), buffer_bytes=_BUFFER_BYTES)
        except Exception as error:  # whatever libav says about foreign bytes, they are not audio we can use
            raise NotForThisReader from error
        try:
            self._stream = self._choose_stream()
            self.info = self._describe()
        except (VoiceForgeError, NotForThisReader):
            self._container.close()
            raise
        except Exception as error:  # PyAV on values it did not expect
            self._container.close()
            raise NotForThisReader from error
        self.duration_trusted = self.info.duration_s is not None and self.info.container in _TRUSTED_DURATION
        self._mp3_cut = self.info.container == "mp3" and mp3_cut
        self.truncated = False
        self.unread = False

    def pieces(self) -> Iterator[Pcm]:
        """A few seconds each."""
        if self.info.container in _DECLARES_PADDING and self.info.duration_s:
            return _without_padding(self._pieces(), self.info.duration_s)
        return self._pieces()

    def _pieces(self) -> Iterator[Pcm]:
        gathered: _Gatherer | None = None
        seconds = 0.0
        broke_off = False
        odd_frame: UnreadableAudio | None = None
        packets = iter(self._container.demux(self._stream))
        while True:
            try:
                packet = next(packets, None)
            except Exception:  # the container is damaged or cut here: keep what came before
                broke_off = True
                break
            if packet is None:
                break
            try:
                frames = packet.decode()
            except Exception:  # noqa: S112  # one damaged packet; the next usually decodes
                continue
            for frame in frames:
                if gathered is None or not gathered.take(frame):
                    if gathered is not None:
                        seconds += gathered.seconds
                        yield from gathered.drain()
                        gathered = None
                    try:
                        gathered = _Gatherer(frame)
                    except UnreadableAudio as error:  # damage, unless it stays the only thing there is
                        odd_frame = error
                        continue
                if gathered.waiting >= gathered.enough:
                    yield gathered.piece()
        if gathered is not None:
            seconds += gathered.seconds
            yield from gathered.drain()
        if not seconds and odd_frame is not None:
            raise odd_frame
        self.truncated = broke_off or self._falls_short(seconds) or self._mp3_cut

    def glimpse(self, at_s: float, length_s: float) -> Iterator[Pcm]:
        if self.info.container in _NO_PLACES:
            raise UnreadableAudio("the file cannot be read there")
        gathered: _Gatherer | None = None
        try:
            begins = self._container.start_time or 0
            self._container.seek(begins + int(at_s * 1_000_000))
            for packet in islice(self._container.demux(self._stream), _GLIMPSE_PACKETS):
                for frame in packet.decode():
                    if frame.time is not None and frame.time < at_s + begins / 1_000_000:
                        continue  # a container may lead us to a place well before
                    gathered = gathered or _Gatherer(frame)
                    gathered.take(frame)
                if gathered is not None and gathered.seconds >= length_s:
                    break
        except Exception as error:
            raise UnreadableAudio("the file cannot be read there") from error
        if gathered is not None:
            yield from gathered.drain()

    def close(self) -> None:
        self._container.close()

    def _choose_stream(self) -> AudioStream:
        streams = self._container.streams
        if not streams.audio:
            raise NoAudioTrack(
                "the file holds video but no audio track"
                if streams.video
                else "the file holds no audio track"
            )
        best = streams.best("audio")
        allowed = _DECODERS.split(",")
        usable = [
            s
            for s in sorted(streams.audio, key=lambda s: s != best)
            if s.codec_context and s.codec_context.name in allowed
        ]
        if not usable:
            raise UnreadableAudio(
                f"the audio is in {_codec_of(streams.audio[0])}, which is not supported here"
            )
        return usable[0]

    def _describe(self) -> AudioInfo:
        stream, context = self._stream, self._stream.codec_context
        if _tag_of(stream) in _ENCRYPTED_TAGS:
            raise UnreadableAudio("the audio track is encrypted")
        if not context.sample_rate or not context.channels:
            raise NotForThisReader  # libav zeroes what it does not believe
        check_shape(context.sample_rate, context.channels)
        duration: float | None = None
        if stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
        elif self._container.duration:
            duration = self._container.duration / 1_000_000
        return AudioInfo(
            container=self._container.format.name.split(",")[0],
            codec=_codec_of(stream),
            sample_rate_hz=context.sample_rate,
            channels=context.channels,
            duration_s=duration if duration and duration > 0 else None,
            has_video=any(not _is_cover_art(s) for s in self._container.streams.video),
        )

    def _falls_short(self, seconds: float) -> bool:
        """Clearly less was decoded than the container declares (padding and rounding left aside)."""
        declared = self.info.duration_s
        if declared is None or not self.duration_trusted:
            return False
        if self.info.has_video and not self._stream.duration:
            return False  # it may be the picture's
        return seconds < declared - max(0.25, 0.02 * declared)


class _Gatherer:
    """Collects equal frames in libav's own queue until they make a piece.

    Not done in numpy: the queue copies frame by frame in C, a third of the time.

    Raises: UnreadableAudio for frames of a shape that no recording has.
    """

    def __init__(self, first: AudioFrame) -> None:
        import av

        layout = first.layout
        check_shape(first.sample_rate, layout.nb_channels)
        self._rate_hz = first.sample_rate
        self._channels = layout.nb_channels
        self._taken = 0
        self.waiting = 0
        """Samples that `piece` or `drain` will give."""
        self.enough = _PIECE_S * self._rate_hz
        self._weights = mono_weights(layout)
        self._fifo: AudioFifo = av.AudioFifo()
        self._interleave: AudioResampler | None = None
        if self._channels >= TOO_MANY_PLANES and first.format.is_planar:
            self._interleave = av.AudioResampler(format="flt", layout=layout, rate=self._rate_hz)
        if not self.take(first):
            _cannot("decoded frames cannot be collected")

    def take(self, frame: AudioFrame) -> bool:
        """Adds the frame; False if it is of another rate, layout or sample format than those before."""
        if frame.layout.nb_channels != self._channels:
            return False  # PyAV's queue does not check this, and reads memory that is not there
        frame.pts = None
        try:
            if self._interleave is None:
                self._fifo.write(frame)
            else:
                for interleaved in self._interleave.resample(frame):
                    interleaved.pts = None
                    self._fifo.write(interleaved)
        except Exception:  # ValueError by its documentation; the next one may take it
            return False
        self._taken += frame.samples
        self.waiting += frame.samples
        return True

    @property
    def seconds(self) -> float:
        return self._taken / self._rate_hz

    def piece(self) -> Pcm:
        self.waiting -= self.enough
        return self._as_pcm(self._fifo.read(self.enough))

    def drain(self) -> Iterator[Pcm]:
        rest = self._fifo.read(0, partial=True)
        if rest is not None and rest.samples:
            yield self._as_pcm(rest)

    def _as_pcm(self, frame: AudioFrame | None) -> Pcm:
        if frame is None:
            _cannot("decoded frames cannot be collected")
        return Pcm(samples_of(frame), self._rate_hz, self._weights)


def _without_padding(pieces: Iterator[Pcm], declared_s: float) -> Iterator[Pcm]:
    """Drops what lies beyond the declared end, if it is so little that it can only be padding."""
    beyond: list[Pcm] = []
    beyond_s = seconds = 0.0
    for pcm in pieces:
        rate_hz = pcm.sample_rate_hz
        inside = min(len(pcm.samples), max(0, round((declared_s - seconds) * rate_hz)))
        seconds += len(pcm.samples) / rate_hz
        if inside:
            yield Pcm(pcm.samples[:inside], rate_hz, pcm.mono_weights)
        if inside == len(pcm.samples):
            continue
        beyond.append(Pcm(pcm.samples[inside:], rate_hz, pcm.mono_weights))
        beyond_s += (len(pcm.samples) - inside) / rate_hz
        if beyond_s > _MAX_PADDING_S:
            yield from beyond
            beyond = []


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def open_container(
    file: _Readable,
    *,
    buffer_bytes: int,
    demuxer: str | None = None,
    probing: Mapping[str, str] | None = None,
) -> InputContainer:
    """Open what anybody may have sent: with the allow-lists, and so that it opens nothing else.

    Args:
        file: where it cannot seek, it is read from beginning to end.
        demuxer: None: found by content; probing: how, in libav's options.

    Raises: whatever libav says about foreign bytes.
    """
    import av

    return av.open(
        file,
        mode="r",
        format=demuxer,
        container_options={
            **(probing or {}),
            "format_whitelist": _DEMUXERS,
            "codec_whitelist": _DECODERS,
            "protocol_whitelist": "none",
        },
        metadata_errors="replace",
        buffer_size=buffer_bytes,
        io_open=_refuse_to_open,
    )


def _refuse_to_open(*_: Any) -> NoReturn:
    raise PermissionError("a recording may not open other files")


def _cannot(why: str) -> NoReturn:
    raise UnreadableAudio(why)


def samples_of(frame: AudioFrame) -> NDArray[np.float32]:
    """Shape (n_samples, n_channels).

    Raises: UnreadableAudio for kinds of samples that PyAV does not hand out.
    """
    try:
        values = frame.to_ndarray()
    except Exception as error:
        raise UnreadableAudio(f"samples of kind {frame.format.name} are not supported here") from error
    by_channel = values if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels).T
    return to_float32(by_channel).T


def mono_weights(layout: AudioLayout) -> tuple[float, ...] | None:
    names = [channel.name for channel in layout.channels]
    if len(names) <= 2 or not {"FL", "FR"} <= set(names):
        return None  # mono, stereo, or channels without places: microphones side by side
    weights = [_SURROUND_WEIGHTS.get(name, _SURROUND_REST) for name in names]
    return tuple(weight / sum(weights) for weight in weights)


def _codec_of(stream: Any) -> str:
    context = stream.codec_context
    return context.codec.canonical_name if context is not None else "an unknown codec"


def _tag_of(stream: Any) -> str:
    try:
        return str(stream.codec_context.codec_tag).lower()
    except UnicodeDecodeError:  # PyAV expects ASCII; WAV's tags are numbers
        return ""


def _is_cover_art(stream: Any) -> bool:
    from av.stream import Disposition

    return bool(stream.disposition & Disposition.attached_pic)
