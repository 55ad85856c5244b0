"""A live stream on a server: audio out, captions in, over `/v1/stream`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from voiceforge.cli.live_captions import Caption, Remark
from voiceforge.cli.server_client import error_in
from voiceforge.errors import InvalidRequest, Unavailable
from voiceforge.speech.options import RawFormat, StreamOptions

_PATH = "/v1/stream"
_PATIENCE_S = 30.0


def stream_url(server: str, asked: Mapping[str, Any]) -> str:
    """
    Raises:
        InvalidRequest
    """
    parts = urlsplit(server)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme)
    if scheme is None or not parts.netloc:
        raise InvalidRequest("the server's URL looks like http://127.0.0.1:8000", field="server")
    query = urlencode({name: value for name, value in asked.items() if value is not None}, doseq=True)
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + _PATH, query, ""))


def wishes(
    options: StreamOptions, audio: RawFormat, model: str | None, *, polish: bool = False
) -> dict[str, Any]:
    """The query of a stream that asks for this."""
    return {
        "model": model,
        "language": options.language,
        "prompt": options.prompt,
        "keyterm": list(options.keyterms) or None,
        "endpointing_ms": options.endpointing_ms,
        "interim": str(options.interim).lower(),
        "encoding": audio.encoding,
        "sample_rate": audio.sample_rate_hz,
        "input_channels": audio.channels,
        "polish": "best" if polish else None,
    }


async def remote_captions(
    server: str, key: str | None, asked: Mapping[str, Any], audio: AsyncIterator[bytes]
) -> AsyncGenerator[Caption | Remark, None]:
    """What is said in `audio`, until both have ended, and what becomes of it.

    Args:
        asked: the query of the stream.

    Raises:
        VoiceForgeError: what the server says of it, or that it cannot be reached.
    """
    import websockets
    from websockets.exceptions import InvalidStatus, WebSocketException

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with websockets.connect(
            stream_url(server, asked), additional_headers=headers, max_size=None, open_timeout=_PATIENCE_S
        ) as socket:
            sending = asyncio.create_task(_send(socket, audio))
            try:
                async for message in socket:
                    told = json.loads(message)
                    if told["type"] == "error" and told["fatal"]:
                        raise error_in(message.encode() if isinstance(message, str) else message, 0)
                    if told["type"] in ("interim", "final"):
                        yield _caption(told)
                    if (remark := _remark(told)) is not None:
                        yield remark
                    if told["type"] == "closed":
                        await sending
                        return
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
    except InvalidStatus as refused:
        raise error_in(bytes(refused.response.body), refused.response.status_code) from None
    except (OSError, TimeoutError):
        raise Unavailable(f"there is no server at {server}") from None
    except WebSocketException:
        raise Unavailable("the server closed the stream") from None


async def _send(socket: Any, audio: AsyncIterator[bytes]) -> None:
    try:
        async for block in audio:
            await socket.send(block)
    finally:
        # Of audio that cannot be read, too: what was heard of it is still told.
        await socket.send('{"type": "close"}')


def _caption(told: Mapping[str, Any]) -> Caption:
    return Caption(
        final=told["type"] == "final",
        text=told["text"],
        start=told["start"],
        end=told["end"],
        stable=told.get("stable", 0),
        document=told,
    )


def _remark(told: Mapping[str, Any]) -> Remark | None:
    match told["type"]:
        case "revision":
            return Remark(None, told)
        case "warning":
            return Remark(f"voiceforge: {told['message']}", told)
        case "closed" if (kept_as := told["transcription_id"]) is not None:
            return Remark(f"Kept: voiceforge jobs show {kept_as}", told)
        case _:
            return None
