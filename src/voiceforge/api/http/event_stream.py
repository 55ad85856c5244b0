"""Server-sent events as a reply: frames go out as they come, comments keep idle connections alive, and when
the client goes, what makes the frames is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from voiceforge.api.http.disconnect import until_gone

_PING = b": ping\n\n"
# Long enough for a bad request to be found out while a plain error status can still be sent.
_FIRST_FRAME_S = 5.0
# A client that reads slowly holds back what makes its frames instead of filling our memory.
_FRAMES_AHEAD = 64


@dataclass(frozen=True, slots=True)
class _Ended:
    """The last thing there is: that it is over, and with what error, if with one."""

    error: Exception | None


_Queue = asyncio.Queue[bytes | _Ended]


class EventStream(Response):
    """Takes over `frames` and closes it, whatever happens.

    Args:
        frames: whole frames, each with the empty line that ends it; an empty one only says that all is well.
        last_words: the frame that tells of an error once the status is out.

    Raises (from the reply itself):
        Exception: what stopped `frames` before anything was sent; the status is still free.
        ClientDisconnect: the client went away; `frames` is closed.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        *,
        last_words: Callable[[Scope, Exception], bytes],
        ping_interval_s: float,
    ) -> None:
        # No-buffering is for nginx, which would otherwise hold events back until its buffer is full.
        super().__init__(headers={"Cache-Control": "no-cache, no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._frames = frames
        self._last_words = last_words
        self._ping_interval_s = ping_interval_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        queue: _Queue = asyncio.Queue(maxsize=_FRAMES_AHEAD)
        # The frames are drawn by one task from first to last: generators may hold task-bound resources.
        drawing = asyncio.create_task(_draw(self._frames, queue))
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
        item = await _next(queue, _FIRST_FRAME_S)
        if isinstance(item, _Ended) and item.error is not None:
            raise item.error
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while not isinstance(item, _Ended):
            if item:
                await send({"type": "http.response.body", "body": item, "more_body": True})
            item = await _next(queue, self._ping_interval_s)
        last = b"" if item.error is None else self._last_words(scope, item.error)
        await send({"type": "http.response.body", "body": last, "more_body": False})


async def _draw(frames: AsyncGenerator[bytes, None], queue: _Queue) -> None:
    failure: Exception | None = None
    try:
        async with aclosing(frames):
            async for frame in frames:
                await queue.put(frame)
    except Exception as error:
        failure = error
    await queue.put(_Ended(failure))


async def _next(queue: _Queue, patience_s: float) -> bytes | _Ended:
    """The next frame; a comment where there was none for `patience_s`."""
    try:
        async with asyncio.timeout(patience_s):
            return await queue.get()
    except TimeoutError:
        return _PING
