"""WebSocket `/v1/listen`: audio and control messages in, `Results` and their like out."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from starlette.datastructures import Headers

from voiceforge.api.deepgram_compat import schemas
from voiceforge.api.deepgram_compat.errors import error_message
from voiceforge.api.deepgram_compat.live_convert import LiveMessages, Session
from voiceforge.api.deepgram_compat.live_messages import Configure, Misunderstood, Plain, read_message
from voiceforge.api.deepgram_compat.live_wishes import LiveWish, live_wish
from voiceforge.api.http.auth import caller_of
from voiceforge.api.http.forms import Fields, parse
from voiceforge.api.http.sockets import INTERNAL_ERROR, POLICY_VIOLATION, SERVICE_RESTART, Socket, SocketGone
from voiceforge.errors import ErrorKind, ShuttingDown, Unavailable, UnsupportedOption, VoiceForgeError
from voiceforge.services.container import Services
from voiceforge.services.streams import Stream
from voiceforge.speech.options import StreamOptions
from voiceforge.speech.transcript.stream_events import Closed
from voiceforge.telemetry.logger import Logger

_SCHEMES = ("token", "bearer")
_SDK = re.compile(r"deepgram-sdk/(\d+)\.")
_KEEPS_TO_FOUR_TYPES = 7
"""SDKs before this one break on every type of message but Results, Metadata, SpeechStarted, UtteranceEnd."""

# What Deepgram's documentation calls them.
_UNDECODABLE = (POLICY_VIOLATION, "DATA-0000")
_NOTHING_CAME = (INTERNAL_ERROR, "NET-0001")
_BROKEN = (INTERNAL_ERROR, "NET-0000")
_CLOSINGS: Mapping[ErrorKind, tuple[int, str]] = {
    ErrorKind.INVALID_AUDIO: _UNDECODABLE,
    ErrorKind.AUDIO_OUT_OF_LIMITS: _UNDECODABLE,
    ErrorKind.TOO_LARGE: _UNDECODABLE,
    ErrorKind.DEADLINE_EXCEEDED: _NOTHING_CAME,
}

_log = Logger(__name__)


def keys_in_subprotocols(offered: Sequence[str]) -> list[str]:
    """Browsers send no headers: their keys come as `token, KEY`."""
    return [key for scheme, key in pairwise(offered) if scheme.lower() in _SCHEMES]


def sdk_version(headers: Headers) -> int | None:
    """The first number of the version of Deepgram's own Python SDK; None for other clients."""
    version = headers.get("x-fern-sdk-version", "").partition(".")[0]
    if headers.get("x-fern-sdk-name") == "deepgram" and version.isdecimal():
        return int(version)
    named = _SDK.match(headers.get("user-agent", ""))
    return int(named[1]) if named else None


class LiveDoor:
    """Args:
    defaults: what a stream gets that asks for nothing.
    """

    def __init__(self, services: Services, defaults: StreamOptions) -> None:
        self._services = services
        self._defaults = defaults

    async def serve(self, socket: Socket) -> None:
        """Talk with one client until it is over.

        Raises:
            VoiceForgeError: it does not come to be; nothing was accepted yet.
            SocketGone
        """
        fields = Fields(socket.query.multi_items())
        query = parse(schemas.LiveQuery, fields.as_input(schemas.LiveQuery))
        wish = live_wish(query, self._defaults)
        if self._services.streams is None:
            raise Unavailable("this process takes no live streams")
        stream = await self._services.streams.open(replace(wish.request, caller=caller_of(socket)))
        try:
            chosen = [offered for offered in socket.subprotocols[:1] if offered.lower() in _SCHEMES]
            await socket.accept(chosen[0] if chosen else None)
            await self._talk(socket, stream, wish)
        finally:
            stream.abort()

    async def _talk(self, socket: Socket, stream: Stream, wish: LiveWish) -> None:
        model = self._services.models.get(stream.model.id)
        able = (model.capabilities or {}).get("max_keyterms", 0) > 0
        if wish.request.options.keyterms and not able:
            wish = replace(wish, warnings=(*wish.warnings, _no_keyterms()))
        session = Session(socket.request_id, datetime.now(UTC), stream.model, model.family)
        ear = _Ear(socket, stream, wish, takes_keyterms=able)
        mouth = _Mouth(socket, stream, LiveMessages(wish, session), ear)
        hearing = asyncio.create_task(ear.listen())
        try:
            await mouth.speak()
        finally:
            hearing.cancel()
            await asyncio.wait([hearing])


def _no_keyterms() -> schemas.WarningOut:
    return schemas.WarningOut(
        parameter="keyterm",
        type="option_ignored",
        message="this model has no keyterm; the option was ignored",
    )


class _Ear:
    """What the client sends. failure: a defect of ours over it."""

    def __init__(self, socket: Socket, stream: Stream, wish: LiveWish, *, takes_keyterms: bool) -> None:
        self._socket = socket
        self._stream = stream
        self._options = wish.request.options
        self._takes_keyterms = takes_keyterms
        self._sdk = sdk_version(socket.headers)
        self._digest = hashlib.sha256()
        self._closing = False
        self.failure: Exception | None = None

    @property
    def sha256(self) -> str:
        """Of all audio so far."""
        return self._digest.hexdigest()

    async def listen(self) -> None:
        """Until the client is gone."""
        try:
            while True:
                message = await self._socket.receive()
                try:
                    await self._take(message)
                except VoiceForgeError:
                    self._closing = True  # why, is told by the stream's events, after what was heard
        except SocketGone:
            self._stream.abort()
        except Exception as error:
            self.failure = error
            self._stream.abort()

    async def _take(self, message: bytes | str) -> None:
        if isinstance(message, str):
            await self._control(message)
        elif message and not self._closing:
            self._digest.update(message)
            await self._stream.push(message)
        else:  # an empty frame is how some keep alive
            self._stream.keep_alive()

    async def _control(self, text: str) -> None:
        match read_message(text):
            case Plain("KeepAlive"):
                self._stream.keep_alive()
            case Plain("CloseStream"):
                self._closing = True
                await self._stream.close()
            case Plain("Finalize"):
                if not self._closing:
                    await self._stream.finalize()
            case Configure() as wished:
                if not self._closing:
                    await self._configure(wished)
            case Misunderstood() as said:
                if self._sdk is not None and self._sdk >= _KEEPS_TO_FOUR_TYPES:
                    await self._socket.send_json(
                        {
                            "type": "Error",
                            "variant": "SchemaError",
                            "description": said.why,
                            "message": said.quoted,
                        }
                    )

    async def _configure(self, wished: Configure) -> None:
        failed = await self._configured(wished)
        answer: dict[str, Any] = {"request_id": self._socket.request_id}
        if failed is not None:
            code, description = failed
            answer |= {"type": "ConfigureFailure", "code": code, "description": description}
        else:
            answer["type"] = "ConfigureSuccess"
            if wished.keyterms is not None:
                answer["keyterms"] = list(wished.keyterms)
        if self._sdk is None or self._sdk >= _KEEPS_TO_FOUR_TYPES:
            await self._socket.send_json(answer)

    async def _configured(self, wished: Configure) -> tuple[str, str] | None:
        """Nothing of it is done where some of it cannot be: then why."""
        lacking = [name for name, on in wished.features.items() if on]
        if lacking:
            return "CONFIGURE_INTERNAL_ERROR", f"this server does not have: {', '.join(lacking)}"
        if wished.keyterms is None:
            return None
        if wished.keyterms and not self._takes_keyterms:
            return "CONFIGURE_KEYTERMS_NOT_SUPPORTED", "this model takes no keyterms"
        options = replace(self._options, keyterms=wished.keyterms)
        try:
            await self._stream.configure(options)
        except UnsupportedOption as error:
            return "CONFIGURE_KEYTERM_LIMIT_EXCEEDED", error.message
        self._options = options
        return None


class _Mouth:
    """What the client is told."""

    def __init__(self, socket: Socket, stream: Stream, messages: LiveMessages, ear: _Ear) -> None:
        self._socket = socket
        self._stream = stream
        self._messages = messages
        self._ear = ear

    async def speak(self) -> None:
        """To the end of the stream, which the client is told too.

        Raises:
            SocketGone
        """
        try:
            async for event in self._stream.events():
                for message in self._messages.of(event, self._stream.channels):
                    await self._socket.send_json(message)
                if isinstance(event, Closed):
                    await self._end(event.duration)
                    await self._socket.close()
                    return
            if self._ear.failure is not None:
                raise self._ear.failure
        except ShuttingDown as error:
            await self._end(self._stream.duration_s)
            await self._socket.close(SERVICE_RESTART, error.message)
        except VoiceForgeError as error:
            code, name = _CLOSINGS.get(error.kind, _BROKEN)
            _log.info("stream ended", problem=error.code)
            await self._socket.close(code, f"{name} {error_message(error)}")

    async def _end(self, duration_s: float) -> None:
        await self._socket.send_json(
            self._messages.metadata(
                sha256=self._ear.sha256, duration=duration_s, channels=self._stream.channels
            )
        )
