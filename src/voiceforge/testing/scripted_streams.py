"""Live streams as the surfaces see them, but what is told of the audio is a script of the test's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from voiceforge.errors import Conflict, VoiceForgeError
from voiceforge.services.streams import Stream, StreamRequest, Streams
from voiceforge.speech.options import StreamOptions
from voiceforge.speech.transcript.stream_events import Closed, Flushed, StreamEvent
from voiceforge.speech.transcript.types import ModelRef

Verb = Literal["push", "finalize", "close"]
Script = Callable[["ScriptedStream", Verb], Iterable[StreamEvent | Exception]]

_BYTES_PER_S = 32_000


def hears_nothing(stream: ScriptedStream, verb: Verb) -> Iterable[StreamEvent | Exception]:
    """Silence: what is asked is answered, and no more."""
    if verb == "finalize":
        yield Flushed(stream.duration_s)
    if verb == "close":
        yield Closed(stream.duration_s)


class ScriptedStream(Stream):
    """`calls`: what was asked of it, in order. `received`: all bytes of audio, taken for 16 kHz linear16."""

    def __init__(self, request: StreamRequest, script: Script) -> None:
        self.request = request
        self._options = request.options
        self.received = bytearray()
        self.calls: list[str] = []
        self._script = script
        self._happened: asyncio.Queue[StreamEvent | Exception | None] = asyncio.Queue()
        self._closed = False

    @property
    def id(self) -> str:
        return "scripted"

    @property
    def options(self) -> StreamOptions:
        return self._options

    @property
    def model(self) -> ModelRef:
        return ModelRef("fake", "1")

    @property
    def channels(self) -> int:
        audio = self.request.audio
        split = self.request.channels == "split" and audio is not None
        return audio.channels if split and audio is not None else 1

    @property
    def received_bytes(self) -> int:
        return len(self.received)

    @property
    def duration_s(self) -> float:
        return len(self.received) / _BYTES_PER_S

    async def push(self, data: bytes) -> None:
        if self._closed:
            raise Conflict("the stream is closed")
        self.received += data
        self._act("push")

    def keep_alive(self) -> None:
        self.calls.append("keep_alive")

    async def finalize(self) -> None:
        self._act("finalize")

    async def configure(self, options: StreamOptions) -> None:
        self.calls.append("configure")
        self._options = options

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._act("close")

    def abort(self) -> None:
        self.calls.append("abort")
        self._happened.put_nowait(None)

    async def events(self) -> AsyncIterator[StreamEvent]:
        while (news := await self._happened.get()) is not None:
            if isinstance(news, Exception):
                raise news
            yield news
            if isinstance(news, Closed):
                return

    def _act(self, verb: Verb) -> None:
        self.calls.append(verb)
        for news in self._script(self, verb):
            self._happened.put_nowait(news)


@dataclass
class ScriptedStreams(Streams):
    """`opened`: in order. refusal: what opening one raises."""

    script: Script = hears_nothing
    refusal: VoiceForgeError | None = None
    opened: list[ScriptedStream] = field(default_factory=list)

    def check(self, request: StreamRequest) -> str:
        return "fake"

    async def open(self, request: StreamRequest) -> ScriptedStream:
        if self.refusal is not None:
            raise self.refusal
        self.opened.append(ScriptedStream(request, self.script))
        return self.opened[-1]
