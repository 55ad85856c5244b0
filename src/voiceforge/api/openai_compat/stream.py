"""A running transcription as OpenAI's server-sent events: deltas while it is decoded, then one `done`.

Owns the text: what `done` carries is what the deltas carried.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.types import Scope

from voiceforge.api.http.errors import ErrorReplies, unexpected
from voiceforge.api.http.event_stream import EventStream
from voiceforge.api.openai_compat import schemas
from voiceforge.api.openai_compat.convert import languages, warnings
from voiceforge.api.openai_compat.errors import STATUSES, error_object
from voiceforge.errors import ErrorKind, VoiceForgeError
from voiceforge.speech.transcript import Finished, SegmentReady, TranscribeEvent
from voiceforge.telemetry.logger import Logger

log = Logger(__name__)


def transcript_stream(
    events: AsyncGenerator[TranscribeEvent, None],
    *,
    notes: tuple[schemas.Warned, ...],
    ping_interval_s: float,
) -> EventStream:
    """Takes over `events`; when the client goes, the decode is stopped."""
    return EventStream(_frames(events, notes), last_words=_told, ping_interval_s=ping_interval_s)


async def _frames(
    events: AsyncGenerator[TranscribeEvent, None], notes: tuple[schemas.Warned, ...]
) -> AsyncGenerator[bytes, None]:
    text = ""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, SegmentReady) and event.segment.text:
                delta = f" {event.segment.text}" if text else event.segment.text
                text += delta
                yield _frame(schemas.TextDelta(delta=delta).model_dump())
            elif isinstance(event, Finished):
                yield _frame(_done(event, text, notes).model_dump())
            else:
                yield b""


def _done(event: Finished, text: str, notes: tuple[schemas.Warned, ...]) -> schemas.TextDone:
    return schemas.TextDone(
        text=text,
        languages=languages(event.transcript),
        usage=schemas.StreamUsage(seconds=round(event.transcript.duration, 3)),
        x_warnings=warnings(event.transcript, notes),
    )


def _frame(document: dict[str, object]) -> bytes:
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n".encode()


def _told(scope: Scope, error: Exception) -> bytes:
    ours = error if isinstance(error, VoiceForgeError) else unexpected()
    if ours.kind is ErrorKind.INTERNAL:
        log.error("stream_failed", code=ours.code, exc_info=error)
    ErrorReplies.tell(scope, ours)
    return _frame({"error": error_object(ours, STATUSES[ours.kind])})
