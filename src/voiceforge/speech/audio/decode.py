"""The door of this room: a recording in any format → blocks of 16 kHz float32.

Streaming: memory does not grow with length. The format is told by content, never by name. Whatever
the bytes are, what leaves is audio or one of our errors. Knows no engine and no options but its own.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from voiceforge.errors import (
    AudioTooLong,
    AudioTooShort,
    EmptyAudio,
    InvalidAudio,
    InvalidRequest,
    UnreadableAudio,
)
from voiceforge.speech.audio.conform import Conformer, Rows
from voiceforge.speech.audio.pcm import AudioInfo, NotForThisReader, Pcm, PcmReader
from voiceforge.speech.audio.promised import mp3_is_whole
from voiceforge.speech.audio.read_libav import LibavReader
from voiceforge.speech.audio.read_sndfile import SndfileReader
from voiceforge.speech.audio.sniff import SNIFF_BYTES, describe, is_pcm_or_flac, looks_like_text, may_be_mp3
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.options import AudioLimits, ChannelMode, RawFormat

__all__ = ["MAX_SPLIT_CHANNELS", "AudioInfo", "AudioStream", "open_audio"]

MAX_SPLIT_CHANNELS = 16
_BLOCK_SAMPLES = SAMPLE_RATE_HZ
_LENGTH_TOLERANCE_S = 0.1
"""Codecs pad to whole frames: an hour as AAC lasts a little more than an hour."""
_SPOOL_BYTES = 8 << 20


class AudioStream:
    """One recording being decoded. Made by `open_audio`; a context manager; not thread-safe.

    Blocks lie in [-1, 1], except where a float file itself goes beyond; `PeakNormalizer` brings it back.
    """

    def __init__(
        self,
        reader: PcmReader,
        file: BinaryIO,
        size: int,
        *,
        channel_count: int,
        limits: AudioLimits,
        resources: ExitStack,
    ) -> None:
        self.info = reader.info
        self.channel_count = channel_count
        self._reader = reader
        self._file = file
        self._size = size
        self._limits = limits
        self._resources = resources
        longest = limits.max_duration_s
        self._most_samples = math.inf if longest is None else (longest + _LENGTH_TOLERANCE_S) * SAMPLE_RATE_HZ
        self._decoded_samples = 0
        self._started = False

    @property
    def decoded_s(self) -> float:
        """Seconds given out by `blocks` so far."""
        return self._decoded_samples / SAMPLE_RATE_HZ

    @property
    def truncated(self) -> bool:
        """The file ends, or cannot be read, before what it declares. Known when `blocks` is exhausted."""
        return self._reader.truncated

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yields float32, shape (channel_count, n_samples), 16 kHz, up to a second each. Once only.

        Raises: AudioTooLong as soon as the limit is passed; at the end AudioTooShort, or
            UnreadableAudio if nothing at all could be decoded.
        """
        if self._started:
            raise RuntimeError("an AudioStream is read once")
        self._started = True
        for rows in self._rows():
            for start in range(0, rows.shape[1], _BLOCK_SAMPLES):
                block = rows[:, start : start + _BLOCK_SAMPLES]
                self._decoded_samples += block.shape[1]
                if self._decoded_samples > self._most_samples:
                    raise AudioTooLong(
                        f"the audio is longer than the {self._limits.max_duration_s:g} s that are accepted"
                    )
                yield block
        if not self._decoded_samples:
            raise UnreadableAudio(
                f"the {self.info.container} file declares audio, but none of it can be decoded"
            )
        if self.decoded_s < self._limits.min_duration_s:
            raise AudioTooShort(
                f"the audio lasts {self.decoded_s:.3f} s; "
                f"at least {self._limits.min_duration_s:g} s are needed"
            )

    def glimpse(self, at_s: float, length_s: float) -> NDArray[np.float32]:
        """About so much from about there, or less where there is no more; as a block of `blocks`, whose place
        this takes: after the first glimpse they are not to be had any more.

        Raises: UnreadableAudio where the file cannot be read there.
        """
        self._started = True
        conformer = Conformer(self.channel_count)
        rows = [row for pcm in self._reader.glimpse(at_s, length_s) for row in conformer.push(pcm)]
        rows += conformer.flush()
        return np.concatenate(rows, axis=1) if rows else np.zeros((self.channel_count, 0), np.float32)

    def close(self) -> None:
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rows(self) -> Iterator[Rows]:
        conformer = Conformer(self.channel_count)
        for pcm in self._pcm():
            yield from conformer.push(pcm)
        yield from conformer.flush()

    def _pcm(self) -> Iterator[Pcm]:
        """libsndfile stops at the first damage; libav then reads on from there."""
        seconds = 0.0
        for pcm in self._reader.pieces():
            seconds += len(pcm.samples) / pcm.sample_rate_hz
            yield pcm
        if not self._reader.unread:
            return
        try:
            rest = LibavReader(self._file, self._size)
        except (NotForThisReader, InvalidAudio):
            return
        self._resources.callback(rest.close)
        for pcm in rest.pieces():
            skip = min(len(pcm.samples), round(seconds * pcm.sample_rate_hz))
            seconds -= skip / pcm.sample_rate_hz
            if skip < len(pcm.samples):
                yield Pcm(pcm.samples[skip:], pcm.sample_rate_hz, pcm.mono_weights)
        self._reader = rest


def open_audio(
    source: Path | bytes | BinaryIO,
    *,
    raw: RawFormat | None = None,
    channels: ChannelMode = "mix",
    limits: AudioLimits | None = None,
    max_split_channels: int = MAX_SPLIT_CHANNELS,
) -> AudioStream:
    """Finds out what `source` is and makes ready to decode it.

    Args:
        source: a file object stays its owner's to close; one that cannot seek is copied to an unnamed
            temporary file first.
        raw: how to read headerless PCM; without it the content must say what it is.
        channels: "mix" gives one mono row, "split" one row per channel.

    Raises: EmptyAudio, UnreadableAudio, NoAudioTrack; AudioTooLong where the file itself declares it;
        InvalidRequest for more channels than `max_split_channels`.
    """
    limits = limits or AudioLimits()
    with ExitStack() as resources:
        file = _open(source, resources)
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            raise EmptyAudio("the file is empty")
        file.seek(0)
        head = file.read(SNIFF_BYTES)
        reader = _read_raw(file, size, raw) if raw else _find_reader(file, size, head)
        resources.callback(reader.close)
        info = reader.info
        if info.duration_s == 0.0:
            raise UnreadableAudio(
                "the file holds less than one sample"
                if raw
                else f"the {info.container} file has a header and no audio after it"
            )
        if channels == "split" and info.channels > max_split_channels:
            raise InvalidRequest(
                f"the audio has {info.channels} channels; at most {max_split_channels} can be split",
                field="channels",
            )
        longest = limits.max_duration_s
        if (
            longest is not None
            and reader.duration_trusted
            and info.duration_s is not None
            and info.duration_s > longest + _LENGTH_TOLERANCE_S
        ):
            raise AudioTooLong(f"the audio lasts {info.duration_s:.1f} s; at most {longest:g} s are accepted")
        return AudioStream(
            reader,
            file,
            size,
            channel_count=info.channels if channels == "split" else 1,
            limits=limits,
            resources=resources.pop_all(),
        )


def open_file(path: Path) -> io.FileIO:
    """For reading, unbuffered.

    Raises: UnreadableAudio.
    """
    try:
        return io.FileIO(path)
    except OSError as error:
        raise UnreadableAudio(f"the file cannot be opened: {error.strerror}") from None


def _open(source: Path | bytes | BinaryIO, resources: ExitStack) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if isinstance(source, Path):
        return resources.enter_context(open_file(source))
    if source.seekable():
        return source
    spool: BinaryIO = resources.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    shutil.copyfileobj(source, spool, _SPOOL_BYTES)
    return spool


def _find_reader(file: BinaryIO, size: int, head: bytes) -> PcmReader:
    if is_pcm_or_flac(head) or (may_be_mp3(head) and mp3_is_whole(file, size)):
        with suppress(NotForThisReader):
            return SndfileReader(file, size)
    if looks_like_text(head):
        raise _not_audio(head)
    try:
        return LibavReader(file, size)
    except NotForThisReader:
        raise _not_audio(head) from None


def _read_raw(file: BinaryIO, size: int, raw: RawFormat) -> PcmReader:
    try:
        return SndfileReader(file, size, raw)
    except NotForThisReader:
        raise UnreadableAudio(f"the bytes cannot be read as raw {raw.encoding}") from None


def _not_audio(head: bytes) -> UnreadableAudio:
    return UnreadableAudio(f"this is not audio we can read: it looks like {describe(head)}")
