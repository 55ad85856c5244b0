"""A running transcription as OpenAI's server-sent events: deltas while it is decoded, then one `done`.

Owns the text: what `done` carries is what the deltas carried. Comments keep idle connections alive. When
the client goes, the decode is stopped.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from voiceforge.api.http.disconnect import until_gone
from voiceforge.api.http.errors import ErrorReplies, unexpected
from voiceforge.api.openai_compat import schemas
from voiceforge.api.openai_compat.convert import languages, warnings
from voiceforge.api.openai_compat.errors import STATUSES, error_object
from voiceforge.errors import ErrorKind, VoiceForgeError
from voiceforge.speech.transcript import Finished, SegmentReady, TranscribeEvent
from voiceforge.telemetry.logger import Logger

_PING = b": ping\n\n"
# Long enough for a bad file to be found out while a plain error status can still be sent.
_FIRST_EVENT_S = 5.0
# A client that reads slowly holds its own decode back instead of filling our memory.
_EVENTS_AHEAD = 64

log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class _Ended:
    """The last thing the decode says: that it is over, and with what error, if with one."""

    error: Exception | None


_Queue = asyncio.Queue[TranscribeEvent | _Ended]


class TranscriptStream(Response):
    """Takes over `events` and closes it, whatever happens.

    Raises (from the reply itself):
        VoiceForgeError: it failed before anything was sent; the status is still free.
        ClientDisconnect: the client went away; the decode has stopped.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[TranscribeEvent, None],
        *,
        notes: tuple[schemas.Warned, ...],
        ping_interval_s: float,
    ) -> None:
        # No-buffering is for nginx, which would otherwise hold events back until its buffer is full.
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._notes = notes
        self._ping_interval_s = ping_interval_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        queue: _Queue = asyncio.Queue(maxsize=_EVENTS_AHEAD)
        # The events are drawn by one task from first to last: generators may hold task-bound resources.
        drawing = asyncio.create_task(_draw(self._events, queue))
        sending = asyncio.create_task(self._send(scope, send, queue))
        watching = asyncio.create_task(until_gone(receive))
        try:
            await asyncio.wait({sending, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise ClientDisconnect
            sending.result()
        finally:
            for task in (drawing, sending, watching):
                task.cancel()
            await asyncio.wait({drawing, sending, watching})

    async def _send(self, scope: Scope, send: Send, queue: _Queue) -> None:
        item = await _next(queue, _FIRST_EVENT_S)
        if isinstance(item, _Ended) and item.error is not None:
            raise item.error
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        text = ""
        while not isinstance(item, _Ended):
            frame = b""
            if item is None:
                frame = _PING
            elif isinstance(item, SegmentReady) and item.segment.text:
                delta = f" {item.segment.text}" if text else item.segment.text
                text += delta
                frame = _frame(schemas.TextDelta(delta=delta).model_dump())
            elif isinstance(item, Finished):
                frame = _frame(self._done(item, text).model_dump())
            if frame:
                await send({"type": "http.response.body", "body": frame, "more_body": True})
            item = await _next(queue, self._ping_interval_s)
        last = b"" if item.error is None else _frame({"error": _told(scope, item.error)})
        await send({"type": "http.response.body", "body": last, "more_body": False})

    def _done(self, event: Finished, text: str) -> schemas.TextDone:
        return schemas.TextDone(
            text=text,
            languages=languages(event.transcript),
            usage=schemas.StreamUsage(seconds=round(event.transcript.duration, 3)),
            x_warnings=warnings(event.transcript, self._notes),
        )


async def _draw(events: AsyncGenerator[TranscribeEvent, None], queue: _Queue) -> None:
    failure: Exception | None = None
    try:
        async with aclosing(events):
            async for event in events:
                await queue.put(event)
    except Exception as error:
        failure = error
    await queue.put(_Ended(failure))


async def _next(queue: _Queue, patience_s: float) -> TranscribeEvent | _Ended | None:
    """The next event; None where there was none for `patience_s`."""
    try:
        async with asyncio.timeout(patience_s):
            return await queue.get()
    except TimeoutError:
        return None


def _frame(document: dict[str, object]) -> bytes:
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n".encode()


def _told(scope: Scope, error: Exception) -> dict[str, object]:
    ours = error if isinstance(error, VoiceForgeError) else unexpected()
    if ours.kind is ErrorKind.INTERNAL:
        log.error("stream_failed", code=ours.code, exc_info=error)
    ErrorReplies.tell(scope, ours)
    return error_object(ours, STATUSES[ours.kind])
