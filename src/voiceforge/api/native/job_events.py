"""What happens to a job as server-sent events.

Stored events have their number as `id`, so that a client that was cut off goes on behind the last it saw; how
far the job is stands between them without one.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from voiceforge.api.http.errors import ErrorReplies, unexpected
from voiceforge.api.http.event_stream import EventStream
from voiceforge.api.native.job_convert import iso_time
from voiceforge.errors import ErrorKind, InvalidRequest, VoiceForgeError
from voiceforge.services.access import Caller
from voiceforge.services.job_view import JobView
from voiceforge.services.job_watch import JobWatch, Told
from voiceforge.services.transcriptions import Transcriptions
from voiceforge.telemetry.logger import Logger

LAST_ID_HEADER = "Last-Event-ID"
_HIGHEST_ID = 2**63 - 1

_log = Logger(__name__)


def last_event_id(request: Request) -> int:
    """0 where the client saw none yet.

    Raises:
        InvalidRequest: we never gave such an id.
    """
    given = request.headers.get(LAST_ID_HEADER, "").strip()
    if not given:
        return 0
    if not (given.isascii() and given.isdecimal() and len(given) <= 19 and int(given) <= _HIGHEST_ID):
        raise InvalidRequest(f"{LAST_ID_HEADER} is the id of an event that we gave", field=LAST_ID_HEADER)
    return int(given)


async def event_stream(
    watch: JobWatch,
    transcriptions: Transcriptions,
    caller: Caller,
    job_id: str,
    *,
    after: int,
    ping_interval_s: float,
) -> Response:
    """204 where nothing comes any more: that tells browsers to stop asking.

    Raises:
        NotFound, Unavailable
    """
    frames = _frames(watch, transcriptions, caller, job_id, after)
    first = await anext(frames, None)
    if first is None:
        return Response(status_code=204)
    return EventStream(_with(first, frames), last_words=_told, ping_interval_s=ping_interval_s)


async def _with(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(rest):
        yield first
        async for frame in rest:
            yield frame


async def _frames(
    watch: JobWatch, transcriptions: Transcriptions, caller: Caller, job_id: str, after: int
) -> AsyncGenerator[bytes, None]:
    async with aclosing(watch.events(caller, job_id, after=after)) as news:
        async for item in news:
            if isinstance(item, JobView):
                yield _frame("progress", progress_document(item))
            else:
                number = item.event.seq if item.stored else None
                yield _frame(item.event.type, event_document(item, transcriptions), number)


def progress_document(view: JobView) -> dict[str, Any]:
    """A `ProgressOut`."""
    return {
        "id": view.job.id,
        "status": view.job.status.value,
        "percent": view.percent,
        "seconds_left": None if view.seconds_left is None else round(view.seconds_left, 1),
        "duration": None if view.job.duration_s is None else round(view.job.duration_s, 3),
        "queue_position": view.queue_position,
        "attempts": view.job.attempts,
    }


def event_document(told: Told, transcriptions: Transcriptions) -> dict[str, Any]:
    """An `EventOut`."""
    document = {**told.event.data, "at": iso_time(told.event.created_at)}
    if told.segments is not None:
        document["segments"] = transcriptions.segment_documents(told.segments)
    return document


def _frame(kind: str, document: dict[str, Any], seq: int | None = None) -> bytes:
    number = f"id: {seq}\n" if seq is not None else ""
    data = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return f"{number}event: {kind}\ndata: {data}\n\n".encode()


def _told(scope: Scope, error: Exception) -> bytes:
    """The client comes back and goes on where it was."""
    ours = error if isinstance(error, VoiceForgeError) else unexpected()
    if ours.kind is ErrorKind.INTERNAL:
        _log.error("stream_failed", code=ours.code, exc_info=error)
    ErrorReplies.tell(scope, ours)
    told = {"code": ours.code, "message": ours.message, "kind": ours.kind.value, "retryable": ours.retryable}
    return _frame("error", {"error": told})
