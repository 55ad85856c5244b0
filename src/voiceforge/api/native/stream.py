"""`/v1/stream`: audio in as it is spoken, text out as JSON, over one WebSocket that may be lost on the way.

A client whose connection breaks opens another with the token it was given and the number of the last message
that reached it: it learns which bytes to send again, and is told what it missed.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from voiceforge.api.http.auth import SurfaceKeys, caller_of
from voiceforge.api.http.errors import ErrorReplies
from voiceforge.api.http.forms import Fields, parse
from voiceforge.api.http.sockets import NORMAL, SERVICE_RESTART, Socket, SocketGone, close_code
from voiceforge.api.native.errors import NativeErrors
from voiceforge.api.native.stream_convert import (
    audio_format,
    changed_options,
    error_message,
    event_message,
    stream_options,
    wanted_retention,
)
from voiceforge.api.native.stream_schemas import (
    STREAM_PATH,
    ClientMessage,
    Close,
    Configure,
    Finalize,
    KeepAlive,
    ResumeQuery,
    StreamQuery,
)
from voiceforge.errors import ErrorKind, InvalidRequest, ShuttingDown, VoiceForgeError
from voiceforge.services.streams import Stream, StreamRequest, Streams
from voiceforge.services.transcriptions import Transcriptions
from voiceforge.speech.transcript.stream_events import Closed
from voiceforge.telemetry.logger import Logger

_PROTOCOL = "voiceforge"
_KEY_PROTOCOL = "voiceforge.key."
_PROGRESS_EVERY_S = 1.0
_LONGEST_TEXT = 256 * 1024
_CLIENT_MESSAGE: TypeAdapter[ClientMessage] = TypeAdapter(ClientMessage)

_log = Logger(__name__)


def keys_in_subprotocols(offered: Sequence[str]) -> list[str]:
    """Browsers send no headers: they offer `voiceforge`, and their key as `voiceforge.key.KEY`."""
    return [name.removeprefix(_KEY_PROTOCOL) for name in offered if name.startswith(_KEY_PROTOCOL)]


SURFACE_KEYS = SurfaceKeys(covers=lambda path: path == STREAM_PATH, in_subprotocols=keys_in_subprotocols)


class StreamDoor:
    """Args:
    resume_s: for so long a stream waits for a client that was cut off.
    """

    def __init__(self, streams: Streams, transcriptions: Transcriptions, resume_s: float) -> None:
        self._streams = streams
        self._transcriptions = transcriptions
        self._resume_s = resume_s

    async def serve(self, socket: Socket) -> None:
        fields = Fields(socket.query.multi_items())
        resumes = fields.text("resume") is not None
        if resumes:
            call = await self._taken_up(socket, parse(ResumeQuery, fields.as_input(ResumeQuery)))
        else:
            call = await self._opened(socket, parse(StreamQuery, fields.as_input(StreamQuery)))
        stream = call.stream
        try:
            await socket.accept(_PROTOCOL if _PROTOCOL in socket.subprotocols else None)
            await socket.send_json(self._ready(stream, resumed=resumes))
            await call.hold()
        finally:
            stream.abort()

    async def _opened(self, socket: Socket, given: StreamQuery) -> _Call:
        request = StreamRequest(
            options=stream_options(given),
            audio=audio_format(given),
            model=given.model,
            caller=caller_of(socket),
            channels=given.channels,
            polish=given.polish,
            retention=wanted_retention(given),
            door=NativeErrors.name,
            resumable=True,
        )
        return _Call(socket, await self._streams.open(request), self._transcriptions)

    async def _taken_up(self, socket: Socket, given: ResumeQuery) -> _Call:
        """
        Raises:
            NotFound, Conflict
        """
        stream_id, _, token = given.resume.partition(".")
        stream = self._streams.resume(caller_of(socket), stream_id, token, after=given.after)
        return _Call(socket, stream, self._transcriptions)

    def _ready(self, stream: Stream, *, resumed: bool) -> dict[str, Any]:
        return {
            "type": "ready",
            "id": stream.id,
            "resume_token": f"{stream.id}.{stream.token}",
            "resume_within_s": self._resume_s,
            "model": {"id": stream.model.id, "revision": stream.model.revision},
            "resumed": resumed,
            "received_bytes": stream.received_bytes,
        }


class _Call:
    """One connection of a stream: what the client says, and what it is told, at the same time."""

    def __init__(self, socket: Socket, stream: Stream, transcriptions: Transcriptions) -> None:
        self.stream = stream
        self._socket = socket
        self._transcriptions = transcriptions
        self._progress_due = time.monotonic() + _PROGRESS_EVERY_S

    async def hold(self) -> None:
        """Until everything is told, or one of the two is gone."""
        telling = asyncio.create_task(self._tell())
        listening = asyncio.create_task(self._listen())
        tasks = (telling, listening)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await telling
        except VoiceForgeError as error:
            await self._end(error)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self) -> None:
        async for told in self.stream.numbered():
            message = event_message(
                told.event,
                told.number,
                self._transcriptions.segment_documents,
                kept_as=self.stream.document_id,
            )
            await self._socket.send_json(message)
            if isinstance(told.event, Closed):
                await self._socket.close(NORMAL)

    async def _listen(self) -> None:
        """Until the client closes the stream.

        Raises:
            SocketGone: it left without.
        """
        while True:
            message = await self._socket.receive()
            if isinstance(message, bytes):
                await self.stream.push(message)
                await self._tell_progress()
            else:
                try:
                    wanted = _read(message)
                except InvalidRequest as error:
                    await self._complain(error)
                    continue
                if isinstance(wanted, Close):
                    await self.stream.close()
                    return
                await self._do(wanted)

    async def _do(self, wanted: Configure | Finalize | KeepAlive) -> None:
        match wanted:
            case Configure():
                try:
                    await self.stream.configure(changed_options(self.stream.options, wanted))
                except InvalidRequest as error:
                    await self._complain(error)
            case Finalize():
                await self.stream.finalize()
            case KeepAlive():
                self.stream.keep_alive()

    async def _tell_progress(self) -> None:
        now = time.monotonic()
        if now < self._progress_due:
            return
        self._progress_due = now + _PROGRESS_EVERY_S
        await self._socket.send_json(
            {
                "type": "progress",
                "received_bytes": self.stream.received_bytes,
                "heard_s": round(self.stream.duration_s, 3),
            }
        )

    async def _complain(self, error: VoiceForgeError) -> None:
        """The message was not heeded; all else goes on."""
        await self._socket.send_json(error_message(error, self._socket.request_id, fatal=False))

    async def _end(self, error: VoiceForgeError) -> None:
        if error.kind is ErrorKind.INTERNAL:
            _log.error("stream_failed", code=error.code, exc_info=error)
        ErrorReplies.tell(self._socket.scope, error)
        code = SERVICE_RESTART if isinstance(error, ShuttingDown) else close_code(error)
        try:
            await self._socket.send_json(error_message(error, self._socket.request_id, fatal=True))
        except SocketGone:
            return
        await self._socket.close(code, error.code)


def _read(text: str) -> Configure | Finalize | KeepAlive | Close:
    """
    Raises:
        InvalidRequest: it is none of our messages.
    """
    if len(text) > _LONGEST_TEXT:
        raise InvalidRequest(f"a message holds more than {_LONGEST_TEXT:,} characters")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest("a text message holds a JSON object; audio comes in binary ones") from None
    try:
        return _CLIENT_MESSAGE.validate_python(document)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(step)[:100] for step in fault["loc"][1:])
        known = "configure, finalize, keep_alive, close"
        if not where:
            raise InvalidRequest(f"the type of a message is one of: {known}", field="type") from None
        raise InvalidRequest(f"{where}: {fault['msg']}", field=where) from None
