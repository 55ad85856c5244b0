"""A recording in, one whole document out: from an earlier result at once, else by working on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

from starlette.requests import Request
from starlette.responses import Response

from voiceforge.api.http.disconnect import while_connected
from voiceforge.services.result_cache import CacheUse
from voiceforge.services.transcriptions import Rendered, TranscribeRequest, Transcriptions
from voiceforge.speech.transcript import Transcript

CACHE_HEADER = "X-Cache"


def wanted_cache_use(request: Request) -> CacheUse:
    """What `Cache-Control` says. `no-store`: neither read nor written. `no-cache`, `max-age=0`: not read."""
    values = request.headers.getlist("cache-control")
    if not values:
        return CacheUse.NORMAL
    wishes = {wish.strip().lower() for value in values for wish in value.split(",")}
    if "no-store" in wishes:
        return CacheUse.NONE
    return CacheUse.FRESH if wishes & {"no-cache", "max-age=0"} else CacheUse.NORMAL


async def answered(
    request: Request,
    transcriptions: Transcriptions,
    work: TranscribeRequest,
    shape: Hashable,
    render: Callable[[Transcript], Rendered],
) -> Response:
    """The reply of a door.

    Args:
        shape: equal for all requests whose documents `render` makes alike.
        render: may take a while: hours of subtitles do.

    Raises:
        VoiceForgeError: whatever stopped it.
        ClientDisconnect: the client went away; the work has stopped.
    """
    earlier = await transcriptions.recall(work, shape, render)
    if earlier is not None:
        return _reply(earlier, hit=True)
    transcript = await while_connected(request, transcriptions.transcribe(work))
    rendered = await asyncio.to_thread(render, transcript)
    return _reply(rendered, hit=transcript.cached_at is not None)


def _reply(rendered: Rendered, *, hit: bool) -> Response:
    headers = {CACHE_HEADER: "hit" if hit else "miss"}
    return Response(rendered.body, media_type=rendered.media_type, headers=headers)
