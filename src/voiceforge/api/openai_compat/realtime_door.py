"""WebSocket `/v1/realtime`: a transcription session of OpenAI's Realtime API, from handshake to goodbye."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from voiceforge.api.http.auth import SurfaceKeys, caller_of, offered_keys
from voiceforge.api.http.sockets import (
    GOING_AWAY,
    SERVICE_RESTART,
    Socket,
    SocketGone,
    close_code,
)
from voiceforge.api.openai_compat.errors import STATUSES, OpenAIErrors, error_object
from voiceforge.api.openai_compat.realtime_events import Append, Asked, Clear, Commit, Update, parse
from voiceforge.api.openai_compat.realtime_session import LOGPROBS, Dialect, Session, dialect_of
from voiceforge.api.openai_compat.realtime_turns import ServerEvent, Turns
from voiceforge.errors import InvalidRequest, NotFound, Overloaded, ShuttingDown, Unavailable, VoiceForgeError
from voiceforge.services.access import Caller
from voiceforge.services.short_tokens import ShortTokens
from voiceforge.services.streams import Stream, StreamRequest, Streams
from voiceforge.speech.transcript.stream_events import (
    Closed,
    Final,
    Flushed,
    Interim,
    SpeechEnded,
    SpeechStarted,
    StreamEvent,
)
from voiceforge.telemetry.logger import Logger

PATH = "/v1/realtime"
_PROTOCOL = "realtime"
_BETA_PROTOCOL = "openai-beta.realtime-v1"
_KEY_PROTOCOL = "openai-insecure-api-key."
# Models for conversations, which old clients must name: who transcribes by them wants any.
_CONVERSES = re.compile(r"gpt-(4o-)?(mini-)?realtime(?!-whisper)")
_LARGE_FRAME_CHARS = 256 * 1024
_MOST_COMPLAINTS = 100
"""A client that is told so often that it is wrong will not mend."""
_KEEP_ALIVE_S = 10.0
_MOST_SILENT_S = 900.0
"""OpenAI ends no session for saying nothing, and a muted client may not; but some are forgotten."""
_CLIENTS_FAULTS = (InvalidRequest, NotFound, Overloaded)

_log = Logger(__name__)


def keys_in_subprotocols(offered: Sequence[str]) -> list[str]:
    """Browsers send no headers: their keys come as `openai-insecure-api-key.KEY`."""
    return [name.removeprefix(_KEY_PROTOCOL) for name in offered if name.startswith(_KEY_PROTOCOL)]


SURFACE_KEYS = SurfaceKeys(
    covers=lambda path: path == PATH, in_subprotocols=keys_in_subprotocols, realtime=True
)


def new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(10)}"


def stream_request(session: Session, caller: Caller) -> StreamRequest:
    model = session.transcription.model
    if model is not None and _CONVERSES.match(model):
        model = None
    return StreamRequest(
        options=session.options(), audio=session.audio, model=model, caller=caller, door=OpenAIErrors.name
    )


class RealtimeDoor:
    def __init__(self, streams: Streams | None, tokens: ShortTokens) -> None:
        self._streams = streams
        self._tokens = tokens

    async def serve(self, socket: Socket) -> None:
        """Talk with one client until it is over.

        Raises:
            VoiceForgeError: it does not come to be; nothing was accepted yet.
            SocketGone
        """
        if self._streams is None:
            raise Unavailable("this process takes no live streams")
        session = self._session(socket)
        leg = await _open_leg(self._streams, caller_of(socket), session, since=0.0)
        talk = _Talk(socket, self._streams, session, leg, _dialect(socket))
        try:
            await socket.accept(_PROTOCOL if _PROTOCOL in socket.subprotocols else None)
            await talk.run()
        finally:
            talk.leave()

    def _session(self, socket: Socket) -> Session:
        """As its client secret has it, else as all begin; with the model of the URL, where it names one."""
        keys = [*offered_keys(socket.headers), *keys_in_subprotocols(socket.subprotocols)]
        made = [fields for key in keys if (fields := self._tokens.realtime_session(key)) is not None]
        session = Session.model_validate(made[0]) if made else Session()
        model = socket.query.get("model")
        if model and not _CONVERSES.match(model):
            session = session.changed({"audio": {"input": {"transcription": {"model": model}}}}, "ga")
        return session


def _dialect(socket: Socket) -> Dialect | None:
    """What the handshake tells; None: the first event will."""
    headers = (value.replace(" ", "") for value in socket.headers.getlist("openai-beta"))
    old = "realtime=v1" in ",".join(headers).split(",") or _BETA_PROTOCOL in socket.subprotocols
    return "beta" if old else None


@dataclass(slots=True)
class _Leg:
    """A stretch of the session that one stream hears: another model or format needs another stream.

    since: seconds of the session before it. received_bytes: what it has been sent.
    """

    stream: Stream
    model: str
    since: float
    bytes_per_s: int
    received_bytes: int = 0

    @property
    def until(self) -> float:
        return self.since + self.received_bytes / self.bytes_per_s


async def _open_leg(streams: Streams, caller: Caller, session: Session, since: float) -> _Leg:
    request = stream_request(session, caller)
    model = streams.check(request)
    return _Leg(await streams.open(request), model, since, session.bytes_per_s)


class _Talk:
    """One session. Two tasks: what the client sends, and what it is told."""

    def __init__(
        self, socket: Socket, streams: Streams, session: Session, leg: _Leg, dialect: Dialect | None
    ) -> None:
        self._socket = socket
        self._streams = streams
        self._session = session
        self._id = new_id("sess")
        self._dialect = dialect
        self._turns = Turns(new_id)
        self._leg = leg
        # None after the last one.
        self._legs: asyncio.Queue[_Leg | None] = asyncio.Queue()
        self._legs.put_nowait(leg)
        self._sending = asyncio.Lock()
        self._complaints = 0
        self._failure: Exception | None = None
        self._heard_at = time.monotonic()

    async def run(self) -> None:
        self._settle(self._session)
        await self._tell([{"type": "session.created", "session": self._document()}])
        others = [asyncio.create_task(self._hear()), asyncio.create_task(self._keep_alive())]
        try:
            await self._speak()
        finally:
            for task in others:
                task.cancel()
            await asyncio.wait(others)

    def leave(self) -> None:
        """Nobody listens any more."""
        self._leg.stream.abort()
        while not self._legs.empty():
            if (leg := self._legs.get_nowait()) is not None:
                leg.stream.abort()

    async def _hear(self) -> None:
        """Until the client is gone, or cannot be served; then the stream ends, and with it `_speak`."""
        try:
            while True:
                frame = await self._socket.receive()
                self._heard_at = time.monotonic()
                large = len(frame) > _LARGE_FRAME_CHARS
                event = await asyncio.to_thread(parse, frame) if large else parse(frame)
                try:
                    if isinstance(event.asked, InvalidRequest):
                        raise event.asked
                    await self._do(event.asked)
                except _CLIENTS_FAULTS as error:
                    await self._complain(error, event.id)
        except SocketGone:
            pass
        except Exception as error:
            self._failure = error
        finally:
            self._legs.put_nowait(None)
            self._leg.stream.abort()

    async def _keep_alive(self) -> None:
        while time.monotonic() - self._heard_at < _MOST_SILENT_S:
            await asyncio.sleep(_KEEP_ALIVE_S)
            self._leg.stream.keep_alive()

    async def _do(self, asked: Asked) -> None:
        match asked:
            case Append(audio=audio):
                if audio:
                    self._leg.received_bytes += len(audio)
                    await self._leg.stream.push(audio)
            case Commit():
                await self._tell(self._turns.commit(self._leg.until))
                await self._leg.stream.finalize()
            case Clear():
                await self._tell(self._turns.clear(self._leg.until))
                await self._leg.stream.finalize()
            case Update():
                await self._update(asked)

    async def _update(self, asked: Update) -> None:
        told = "beta" if asked.beta else dialect_of(asked.fields)
        self._dialect = self._dialect or told
        session = self._session.changed(asked.fields, told or self._dialect or "ga")
        model = self._streams.check(stream_request(session, caller_of(self._socket)))
        if (session.audio, model) == (self._session.audio, self._leg.model):
            await self._leg.stream.configure(session.options())
        else:
            leg = await _open_leg(self._streams, caller_of(self._socket), session, since=self._leg.until)
            self._legs.put_nowait(leg)
            before, self._leg = self._leg, leg
            await before.stream.close()
        self._settle(session)
        kind = "transcription_session.updated" if asked.beta else "session.updated"
        await self._tell([{"type": kind, "session": self._document()}])

    def _settle(self, session: Session) -> None:
        self._session = session
        self._turns.dialect = self._dialect or "ga"
        self._turns.detecting = session.turn_detection is not None
        self._turns.logprobs = LOGPROBS in session.include

    def _document(self) -> dict[str, Any]:
        return self._session.document(self._dialect or "ga", session_id=self._id, model=self._leg.model)

    async def _complain(self, error: VoiceForgeError, event_id: str | None) -> None:
        self._complaints += 1
        if self._complaints > _MOST_COMPLAINTS:
            raise InvalidRequest("too many events that cannot be honoured")
        await self._tell([_error(error, event_id)])

    async def _speak(self) -> None:
        """
        Raises:
            SocketGone
        """
        try:
            while (leg := await self._legs.get()) is not None:
                async for event in leg.stream.events():
                    if not isinstance(event, Closed):
                        await self._tell(self._turns.heard(_moved(event, leg.since)))
                    elif leg is self._leg:  # no other follows, and we closed none
                        await self._tell(self._turns.finish())
                        await self._socket.close(GOING_AWAY, "the session is as long as one may be")
                        return
            if self._failure is not None:
                raise self._failure
        except ShuttingDown as error:
            await self._tell(self._turns.finish())
            await self._socket.close(SERVICE_RESTART, error.message)
        except VoiceForgeError as error:
            _log.info("realtime_ended", code=error.code)
            told = _error(error, None)
            await self._tell([*self._turns.failed(told["error"]), told])
            await self._socket.close(close_code(error), error.message)

    async def _tell(self, events: Iterable[ServerEvent]) -> None:
        """All of them before those of whoever calls next."""
        async with self._sending:
            for event in events:
                await self._socket.send_json({"event_id": new_id("event"), **event})


def _error(error: VoiceForgeError, event_id: str | None) -> ServerEvent:
    return {"type": "error", "error": {**error_object(error, STATUSES[error.kind]), "event_id": event_id}}


def _moved(event: StreamEvent, by: float) -> StreamEvent:
    """As heard in the whole session."""
    if not by:
        return event
    match event:
        case SpeechStarted() | Flushed():
            return replace(event, at=event.at + by)
        case Interim() | Final() | SpeechEnded():
            return replace(event, start=event.start + by, end=event.end + by)
        case _:
            return event
