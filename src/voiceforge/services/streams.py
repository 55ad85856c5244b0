"""Live streams: audio in as it is spoken, events out, and everything between that waits or costs.

    open ─▶ Stream ─ push(bytes) ─▶ decoded ─▶ recogniser ─▶ engine ─▶ events()

Every protocol is an adapter over the five verbs of a `Stream`. How speech becomes utterances is the
business of `speech.pipeline.stream`, which knows no clock and no thread; here are both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from voiceforge.services.transcriptions import DEFAULT_TENANT
from voiceforge.speech.options import ChannelMode, EncodedFormat, RawFormat, StreamOptions
from voiceforge.speech.transcript.stream_events import StreamEvent
from voiceforge.speech.transcript.types import ModelRef


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """One live stream as it is wished for.

    audio: how the bytes are to be read; None: a container, found by content.
    model: None: the default one. tenant: whose share of the machine this takes.
    channels: "mix" hears all as one, "split" each apart; events tell the channel.
    polish: a model that hears the whole session again once it is over.
    idle_s: ended with DeadlineExceeded where neither audio nor `keep_alive` came for so long; None: as the
        server is set; more than that has no effect.
    resumable: lives on for a while after `abort`, for `Streams.resume`.
    """

    options: StreamOptions = field(default_factory=StreamOptions)
    audio: RawFormat | EncodedFormat | None = None
    model: str | None = None
    tenant: str = DEFAULT_TENANT
    channels: ChannelMode = "mix"
    polish: str | None = None
    idle_s: float | None = None
    resumable: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """An event with its number: they count from 1 and never go back; some may be missing, where an interim
    was replaced before it was read."""

    number: int
    event: StreamEvent


class Stream:
    """One live stream. Belongs to the event loop that opened it; made by `Streams`."""

    @property
    def id(self) -> str:
        raise NotImplementedError

    @property
    def token(self) -> str:
        """The secret that `Streams.resume` asks for."""
        raise NotImplementedError

    @property
    def model(self) -> ModelRef:
        raise NotImplementedError

    @property
    def channels(self) -> int:
        """How many are heard apart; of encoded audio not known before its header, until then 1."""
        raise NotImplementedError

    @property
    def received_bytes(self) -> int:
        """What `push` has taken so far, by all connections of this stream together."""
        raise NotImplementedError

    @property
    def duration_s(self) -> float:
        """Seconds of audio heard so far."""
        raise NotImplementedError

    @property
    def document_id(self) -> str | None:
        """Of the transcription kept of this session; None where none is, or not yet."""
        raise NotImplementedError

    async def push(self, data: bytes) -> None:
        """Take some more audio; waits while too much is unheard. Any number of bytes, also none; of raw Opus
        packets exactly one.

        Raises:
            InvalidAudio: it cannot be decoded.
            Conflict: after `close`.
            VoiceForgeError: what ended the stream.
        """
        raise NotImplementedError

    def keep_alive(self) -> None:
        """The client is there, though it sends no audio."""
        raise NotImplementedError

    async def finalize(self) -> None:
        """Have what was pushed before told as finals now, then `Flushed`. Raises as `push` does, without
        waiting for either."""
        raise NotImplementedError

    async def configure(self, options: StreamOptions) -> None:
        """From the next utterance on; raises as `push` does, and:

        Raises:
            UnsupportedOption: the model cannot; all stays as it was.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """No more audio comes. The finals of all that was pushed follow, then `Closed`. Idempotent; does not
        wait for them."""
        raise NotImplementedError

    def abort(self) -> None:
        """The client is gone: `events` ends. What is resumable waits for it; all else is given up at once.
        Idempotent."""
        raise NotImplementedError

    def events(self) -> AsyncIterator[StreamEvent]:
        """Everything in order, by one reader; ends after `Closed`.

        Raises:
            VoiceForgeError: what ended the stream; ShuttingDown, after the finals of all that was pushed,
                where the server leaves; DeadlineExceeded where nothing came for too long.
        """
        raise NotImplementedError

    def numbered(self) -> AsyncIterator[Told]:
        """As `events`, each with its number."""
        raise NotImplementedError


class Streams:
    """The live streams of one process."""

    def check(self, request: StreamRequest) -> str:
        """Refuse what is bound to fail, before any audio; returns the model's id.

        Raises:
            ModelNotFound, ModelNotInstalled, UnsupportedOption, InvalidRequest.
        """
        raise NotImplementedError

    async def open(self, request: StreamRequest) -> Stream:
        """Raises as `check` does, and:

        Raises:
            Overloaded: there are too many streams, or those there are wait too long already.
            Unavailable, ShuttingDown.
        """
        raise NotImplementedError

    def resume(self, stream_id: str, token: str, *, after: int) -> Stream:
        """The stream of a client that was cut off; its events go on behind number `after`. A connection that
        still holds it is told Conflict.

        Raises:
            NotFound: there is no such stream in this process (any more), or the token is not its.
            Conflict: events behind `after` are no longer kept.
        """
        raise NotImplementedError
