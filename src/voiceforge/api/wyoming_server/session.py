"""One connection's requests: frames in, events of streams out as frames.

    transcribe ─▶ audio-start ─▶ audio-chunk … ─▶ audio-stop
              voice-started, transcript-chunk … voice-stopped ─▶ transcript ─▶ transcript-stop

Home Assistant reads until `transcript` and overlooks `error`: whoever cannot send the one must close.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from voiceforge.api.wyoming_server.convert import PROGRAM, AudioShape, Samples, Wish
from voiceforge.api.wyoming_server.frames import Frame
from voiceforge.errors import InvalidRequest, NotFound
from voiceforge.services.access import Caller
from voiceforge.services.streams import Stream, Streams
from voiceforge.speech.transcript.growing_text import GrowingText
from voiceforge.speech.transcript.stream_events import Final, Interim, SpeechEnded, SpeechStarted

Send = Callable[[str, Mapping[str, Any] | None], Awaitable[None]]
Whose = Callable[[], Awaitable[Caller]]
Describe = Callable[[], Awaitable[Mapping[str, Any]]]


class Session:
    """
    Args:
        whose: in whose name a command is heard; raises VoiceForgeError where it is nobody's any more.
        describe: gives the `info`.
        send: sends one event; raises ConnectionError where nobody reads.
        on_failure: told of what went wrong while nothing was being handled.
    """

    def __init__(
        self,
        streams: Streams,
        whose: Whose,
        describe: Describe,
        send: Send,
        on_failure: Callable[[Exception], None],
    ) -> None:
        self._streams = streams
        self._whose = whose
        self._describe = describe
        self._send = send
        self._on_failure = on_failure
        self._wish = Wish()
        self._command: _Command | None = None

    @property
    def idle(self) -> bool:
        """Nobody is speaking, and nobody waits."""
        return self._command is None or (self._command.stopped and self._command.over)

    @property
    def owes(self) -> bool:
        """The client has said all and waits for us."""
        return self._command is not None and self._command.stopped and not self._command.over

    async def handle(self, frame: Frame) -> None:
        """
        Raises:
            VoiceForgeError: the client is to be told, and the connection to end.
            ConnectionError
        """
        match frame.type:
            case "describe":
                await self._send("info", await self._describe())
            case "ping":
                text = frame.data.get("text")
                await self._send("pong", {"text": text} if isinstance(text, str) else None)
            case "select-program":
                if frame.data.get("name") != PROGRAM:
                    raise NotFound(f"there is one program here: {PROGRAM}", field="name", choices=(PROGRAM,))
            case "transcribe":
                self._wish = Wish.of(frame.data)
            case "audio-start":
                await self._start(AudioShape.of(frame.data))
            case "audio-chunk":
                await self._chunk(frame)
            case "audio-stop":
                await self._stop()
            case _:
                pass  # by the protocol

    async def leave(self) -> None:
        """The connection is over."""
        if self._command is not None:
            await self._command.leave()

    async def _start(self, shape: AudioShape) -> None:
        if self._command is not None:
            if not self._command.stopped:
                raise InvalidRequest("audio-start came before the audio-stop of the last one")
            await self._command.wait()
        stream = await self._streams.open(self._wish.request(shape, await self._whose()))
        self._command = _Command(shape, stream, self._send, self._on_failure)

    async def _chunk(self, frame: Frame) -> None:
        shape = AudioShape.of(frame.data)
        if self._command is None or self._command.stopped:
            await self._start(shape)
        assert self._command is not None
        if shape != self._command.shape:
            raise InvalidRequest("the audio changes its rate, width or channels half way", field="rate")
        await self._command.push(frame.payload)

    async def _stop(self) -> None:
        if self._command is None or self._command.stopped:
            await _tell_transcript(self._send, "", None)
        else:
            await self._command.stop()


class _Command:
    """What is said between an audio-start and its audio-stop, in one stream."""

    def __init__(
        self,
        shape: AudioShape,
        stream: Stream,
        send: Send,
        on_failure: Callable[[Exception], None],
    ) -> None:
        self.shape = shape
        self.stopped = False
        self._samples = Samples(shape)
        self._stream = stream
        self._send = send
        self._on_failure = on_failure
        self._telling = asyncio.create_task(self._tell())

    @property
    def over(self) -> bool:
        return self._telling.done()

    async def push(self, payload: bytes) -> None:
        await self._stream.push(self._samples.of(payload))

    async def stop(self) -> None:
        self.stopped = True
        await self._stream.close()

    async def wait(self) -> None:
        await asyncio.wait([self._telling])

    async def leave(self) -> None:
        self._stream.abort()
        self._telling.cancel()
        await asyncio.gather(self._telling, return_exceptions=True)

    async def _tell(self) -> None:
        try:
            await self._tell_events()
        except Exception as error:
            self._on_failure(error)

    async def _tell_events(self) -> None:
        text, language, begun = GrowingText(), None, False
        async for event in self._stream.events():
            piece = ""
            match event:
                case SpeechStarted(at=at):
                    await self._send("voice-started", {"timestamp": round(at * 1000)})
                case Interim():
                    piece = text.heard(event)
                case Final():
                    piece = text.settled(event)
                    language = event.language.code if event.language and event.text else language
                    if event.reason != "max_length":
                        await self._send("voice-stopped", {"timestamp": round(event.end * 1000)})
                case SpeechEnded(end=end):
                    await self._send("voice-stopped", {"timestamp": round(end * 1000)})
                case _:
                    pass
            if piece:
                if not begun:
                    await self._send("transcript-start", {"language": language} if language else None)
                    begun = True
                await self._send("transcript-chunk", {"text": piece})
        if not begun:
            await self._send("transcript-start", {"language": language} if language else None)
        await _tell_transcript(self._send, text.text, language)


async def _tell_transcript(send: Send, text: str, language: str | None) -> None:
    await send("transcript", {"text": text, **({"language": language} if language else {})})
    await send("transcript-stop", None)
