"""Encoded audio as it arrives → 16 kHz rows, as soon as they can be had.

A decoder of libav's reads when it wants to, a client sends when it can. `Feed` stands between: when the
decoder has used up what there is, what it has given so far is handed out, and more is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from voiceforge.errors import NoAudioTrack, UnreadableAudio
from voiceforge.speech.audio.conform import Conformer, Rows
from voiceforge.speech.audio.pcm import Pcm, check_shape
from voiceforge.speech.audio.read_libav import TOO_MANY_PLANES, mono_weights, open_container, samples_of
from voiceforge.speech.audio.sniff import SNIFF_BYTES, describe
from voiceforge.speech.options import Codec, EncodedFormat

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

_DEMUXER_OF: dict[Codec, str] = {"flac": "flac", "ogg-opus": "ogg"}
_OPUS_RATE_HZ = 48_000
_BUFFER_BYTES = 4096
_PROBING = {"probesize": "65536", "analyzeduration": "1"}
"""By itself libav reads on for seconds, to be sure of what the header says."""

Exchange = Callable[[list[Rows]], Sequence[bytes] | None]
"""Takes what was decoded so far, and brings what came meanwhile; None: that was all. Waits."""


class Feed:
    """Args:
    first: what has come already.
    """

    def __init__(self, first: Sequence[bytes], exchange: Exchange) -> None:
        self._exchange = exchange
        self._pieces = deque(piece for piece in first if piece)
        self._rows: list[Rows] = []
        self._ended = False
        self.head = b""
        self.broke: BaseException | None = None
        """What the exchange raised: libav would take it for the end of the file."""

    def give(self, rows: list[Rows]) -> None:
        self._rows += rows

    def rest(self) -> list[Rows]:
        """What was given and not yet handed out."""
        rows, self._rows = self._rows, []
        return rows

    def piece(self) -> bytes:
        """What was pushed at once; empty at the end."""
        while not self._pieces and not self._ended:
            try:
                more = self._exchange(self.rest())
            except BaseException as error:
                self.broke = error
                raise
            if more is None:
                self._ended = True
            else:
                self._pieces.extend(piece for piece in more if piece)
        return self._pieces.popleft() if self._pieces else b""

    def has_more(self) -> bool:
        """Waits until there is."""
        piece = self.piece()
        if piece:
            self._pieces.appendleft(piece)
        return bool(piece)

    def read(self, size: int) -> bytes:
        """At most so many bytes, as a file would give them."""
        piece = self.piece()
        if len(piece) > size:
            self._pieces.appendleft(piece[size:])
            piece = piece[:size]
        if len(self.head) < SNIFF_BYTES:
            self.head += piece
        return piece


def decode_pushed(feed: Feed, encoded: EncodedFormat | None, *, split: bool) -> None:
    """Give the feed rows of whatever it brings, until its end.

    Args:
        encoded: None: found by content. split: a row for each channel.

    Raises:
        UnreadableAudio, NoAudioTrack
    """
    conformer: Conformer | None = None
    frames = (
        _packets(feed, encoded.channels)
        if encoded is not None and encoded.codec == "opus"
        else _container(feed, encoded)
    )
    for frame in frames:
        pcm = _as_pcm(frame)
        if conformer is None:
            conformer = Conformer(pcm.samples.shape[1] if split else 1)
        feed.give(conformer.push(pcm))
    if conformer is not None:
        feed.give(conformer.flush())


def _container(feed: Feed, encoded: EncodedFormat | None) -> Iterator[AudioFrame]:
    if not feed.has_more():
        return
    try:
        container = open_container(
            _Pipe(feed),
            buffer_bytes=_BUFFER_BYTES,
            demuxer=None if encoded is None else _DEMUXER_OF[encoded.codec],
            probing=_PROBING,
        )
    except Exception as error:
        if feed.broke is not None:
            raise feed.broke from None
        raise UnreadableAudio(
            f"this is not audio we can read as it comes: it looks like {describe(feed.head)}"
        ) from error
    with container:
        if not container.streams.audio:
            raise NoAudioTrack("there is no audio track in it")
        packets = iter(container.demux(container.streams.audio[0]))
        decoded = False
        while True:
            try:
                packet = next(packets, None)
            except Exception:  # damaged or cut here: what came before counts
                if feed.broke is not None:
                    raise feed.broke from None
                break
            if packet is None:
                break
            try:
                frames = packet.decode()
            except Exception:  # noqa: S112  # one damaged packet; the next usually decodes
                continue
            for frame in frames:
                decoded = True
                yield frame
        if not decoded:
            raise UnreadableAudio("there is audio in it, but none of it can be decoded")


def _packets(feed: Feed, channels: int) -> Iterator[AudioFrame]:
    """Bare packets of Opus, each as it was pushed."""
    import av
    from av.codec import CodecContext

    context: Any = CodecContext.create("opus", "r")
    context.sample_rate = _OPUS_RATE_HZ
    context.layout = "stereo" if channels == 2 else "mono"
    decoded = damaged = False
    while data := feed.piece():
        try:
            frames = context.decode(av.Packet(data))
        except Exception:
            damaged = True
            continue
        for frame in frames:
            decoded = True
            yield frame
    if damaged and not decoded:
        raise UnreadableAudio("these are no packets of Opus")


class _Pipe:
    """What libav may do with a feed: read on, and nothing else."""

    def __init__(self, feed: Feed) -> None:
        self.read = feed.read


def _as_pcm(frame: AudioFrame) -> Pcm:
    layout = frame.layout
    channels = layout.nb_channels
    check_shape(frame.sample_rate, channels)
    if channels >= TOO_MANY_PLANES and frame.format.is_planar:
        raise UnreadableAudio(f"{channels} channels; at most {TOO_MANY_PLANES - 1} can be streamed")
    return Pcm(samples_of(frame), frame.sample_rate, mono_weights(layout))
