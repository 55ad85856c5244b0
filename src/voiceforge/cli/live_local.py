"""A live stream in this process: audio in, captions out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from voiceforge.cli.live_captions import Caption
from voiceforge.services.streams import Stream, StreamRequest, Streams
from voiceforge.speech.transcript.stream_events import Final, Interim


async def local_captions(
    streams: Streams, request: StreamRequest, audio: AsyncIterator[bytes]
) -> AsyncGenerator[Caption, None]:
    """What is said in `audio`, until both have ended.

    Raises:
        VoiceForgeError: what `Streams.open` and the audio raise.
    """
    stream = await streams.open(request)
    pushing = asyncio.create_task(_push(stream, audio))
    try:
        async for event in stream.events():
            if isinstance(event, (Interim, Final)):
                yield _caption(event)
            if pushing.done():
                pushing.result()
        await pushing
    finally:
        pushing.cancel()
        await asyncio.gather(pushing, return_exceptions=True)
        stream.abort()


async def _push(stream: Stream, audio: AsyncIterator[bytes]) -> None:
    try:
        async for block in audio:
            await stream.push(block)
    finally:
        await stream.close()


def _caption(event: Interim | Final) -> Caption:
    document: dict[str, Any] = {
        "type": "final" if isinstance(event, Final) else "interim",
        "channel": event.channel,
        "utterance": event.utterance,
        "start": round(event.start, 3),
        "end": round(event.end, 3),
        "text": event.text,
    }
    stable = 0
    if isinstance(event, Interim):
        stable = document["stable"] = event.stable
    else:
        document["reason"] = event.reason
    return Caption(isinstance(event, Final), event.text, event.start, event.end, stable, document)
