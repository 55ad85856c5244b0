"""Live streams: audio in as it is spoken, events out, and everything between that waits or costs.

    open ─▶ Stream ─ push(bytes) ─▶ decoded ─▶ ears: recogniser ─▶ engine ─▶ events()

Every protocol is an adapter over the five verbs of a `Stream`. How speech becomes utterances is the
business of `speech.pipeline.stream`, which knows no clock and no thread; both are here and beside.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from voiceforge.errors import (
    NotFound,
    Overloaded,
    ShuttingDown,
    UnsupportedOption,
    VoiceForgeError,
)
from voiceforge.services.access import OWNER, Caller, Scope
from voiceforge.services.bookings import Accounts, Heard, NoAccounts
from voiceforge.services.engine_room import EngineRoom
from voiceforge.services.models import Models
from voiceforge.services.stream_decodes import DecodeDesk
from voiceforge.services.stream_ears import Ears, Hearing
from voiceforge.services.stream_pump import Pump
from voiceforge.services.stream_session import Intake, SessionLimits, Stream, Told
from voiceforge.speech.alignment.aligner import Aligner
from voiceforge.speech.audio.pushed_pcm import SAMPLE_BYTES, PushedPcm
from voiceforge.speech.audio.stream_decoder import StreamDecoders
from voiceforge.speech.engines.base import Capabilities
from voiceforge.speech.engines.batch_admission import Admission
from voiceforge.speech.engines.tickets import BatcherLimits, Priority, Ticket
from voiceforge.speech.options import ChannelMode, EncodedFormat, RawFormat, StreamOptions
from voiceforge.speech.pipeline.plan import make_stream_plan
from voiceforge.speech.pipeline.recogniser import Recogniser
from voiceforge.speech.pipeline.stream import make_recogniser
from voiceforge.speech.transcript.stream_events import StreamEvent
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.telemetry.logger import Logger
from voiceforge.telemetry.metrics import Metrics

if TYPE_CHECKING:  # they bring the database with them
    from voiceforge.infra.db.records import Retention
    from voiceforge.services.stream_keeper import StreamKeeper
    from voiceforge.services.stream_keeping import Keeping, Polish
    from voiceforge.services.stream_spool import Spool

__all__ = ["BEST", "Stream", "StreamLimits", "StreamRequest", "Streams", "Told"]

BEST = "best"
"""In place of a model that polishes: the best one that is here."""

_OPENERS = 4
_SETTLERS = 8
"""They wait for the aligner, and for engines where something is heard again."""
_PUMPS = 16
"""They wait for the processes that decode; more than can be stuck at once, one may hope."""
_PIECE_S = 1.0
_ENCODED_BYTES_PER_S = 16_000
"""What a second of encoded audio counts as: 128 kbit/s is more than speech needs."""
_ENCODED_PIECE_BYTES = 64 * 1024
"""As much as the largest packet of Opus, which must stay whole."""
_FULL_RETRY_S = 5.0
_BUSY_LAG_S = 0.5
"""While finals take longer, nothing is heard again."""

_log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """One live stream as it is wished for.

    audio: how the bytes are to be read; None: a container, found by content.
    model: None: the default one. caller: whose share of the machine this takes.
    channels: "mix" hears all as one, "split" each apart; events tell the channel.
    polish: a model, or `BEST`, that hears again what was said, and all of it once it is over: that is kept as
        a transcription. retention: of that; None: as the server's policy says.
    idle_s: ended with DeadlineExceeded where neither audio nor `keep_alive` came for so long; None: as the
        server is set; more than that has no effect.
    door: the surface it came by; None: it is on nobody's account.
    resumable: lives on for a while after `abort`, for `Streams.resume`.
    """

    options: StreamOptions = field(default_factory=StreamOptions)
    audio: RawFormat | EncodedFormat | None = None
    model: str | None = None
    caller: Caller = OWNER
    channels: ChannelMode = "mix"
    polish: str | None = None
    retention: Retention | None = None
    idle_s: float | None = None
    door: str | None = None
    resumable: bool = False


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What `open` gets ready in a thread."""

    ticket: Ticket
    vad: SileroModel
    aligner: Aligner | None
    spool: Spool | VoiceForgeError | None

    def give_up(self) -> None:
        self.ticket.close()
        if self.spool is not None and not isinstance(self.spool, VoiceForgeError):
            self.spool.remove()


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """See the settings of `streams`."""

    max_sessions: int = 200
    max_sessions_per_tenant: int = 200
    max_lag_s: float = 2.0
    idle_s: float = 60.0
    max_session_s: float = 14_400.0
    max_unheard_s: float = 5.0
    grace_s: float = 30.0
    keep_events_s: float = 60.0


class Streams:
    """The live streams of one process. All but `close` belong to one event loop.

    Args:
        aligner: what finds word times; called from threads.
        decoders: of encoded audio.
        vad: makes the voice detector; called once, on first use.
    """

    def __init__(
        self,
        *,
        models: Models,
        engines: EngineRoom,
        aligner: Callable[[], Aligner | None],
        metrics: Metrics,
        limits: StreamLimits,
        decoders: StreamDecoders,
        vad: Callable[[], SileroModel] = SileroModel,
    ) -> None:
        self._models = models
        self._engines = engines
        self._aligner = aligner
        self._metrics = metrics
        self._limits = limits
        self._decoders = decoders
        self._make_vad = vad
        self._vad: SileroModel | None = None
        self._lock = threading.Lock()
        self._admission = Admission(BatcherLimits(max_tickets=limits.max_sessions))
        self._streams: dict[str, Stream] = {}
        self._requests: dict[str, StreamRequest] = {}
        self._accounts: Accounts = NoAccounts()
        self._desk: DecodeDesk | None = None
        self._ears: Ears | None = None
        self._openers = ThreadPoolExecutor(_OPENERS, thread_name_prefix="open-stream")
        self._pumps = ThreadPoolExecutor(_PUMPS, thread_name_prefix="pump")
        self._opening: dict[object, tuple[float, str]] = {}
        self._keeper: StreamKeeper | None = None
        self._leaving = False

    def keep_with(self, keeper: StreamKeeper) -> None:
        """From now on streams can be polished."""
        self._keeper = keeper

    def keep_accounts(self, accounts: Accounts) -> None:
        """From now on what is heard is booked, and refused where nothing is left."""
        self._accounts = accounts

    @property
    def open_count(self) -> int:
        return sum(not stream.over for stream in self._streams.values())

    def check(self, request: StreamRequest) -> str:
        """Refuse what is bound to fail, before any audio; returns the model's id.

        Raises:
            PermissionDenied, ModelNotFound, ModelNotInstalled, UnsupportedOption, InvalidRequest.
        """
        return self._checked(request)[0]

    def _checked(self, request: StreamRequest) -> tuple[str, Polish | None]:
        """The model's id, and how the stream is to be polished."""
        request.caller.needs(Scope.TRANSCRIBE)
        self._accounts.check(request.caller)
        model_id = self._models.resolve(request.model)
        request.caller.check_model(model_id)
        loaded = self._engines.loaded().get(model_id)
        if loaded is not None:
            capabilities: Capabilities | None = loaded.capabilities
        else:
            capabilities = self._models.capabilities(self._models.require_installed(request.model))
        if capabilities is not None:
            make_stream_plan(request.options, capabilities, frozenset())
        if request.polish is None:
            return model_id, None
        if self._keeper is None:
            raise UnsupportedOption("nothing is kept here, so no stream can be polished", field="polish")
        return model_id, self._keeper.polish(request, request.polish, model_id)

    async def open(self, request: StreamRequest) -> Stream:
        """Raises as `check` does, and:

        Raises:
            Overloaded: there are too many streams, or those there are wait too long already.
            Unavailable, ShuttingDown.
        """
        model_id, polish = self._checked(request)
        self._admit(request.caller.tenant)
        opening = object()
        self._opening[opening] = (time.monotonic(), request.caller.tenant)
        try:
            return await self._open(request, model_id, polish)
        finally:
            del self._opening[opening]

    def resume(self, caller: Caller, stream_id: str, token: str, *, after: int) -> Stream:
        """The stream of a client that was cut off; its events go on behind number `after`. A connection that
        still holds it is told Conflict.

        Raises:
            NotFound: there is no such stream of theirs in this process (any more), or the token is not its.
            PermissionDenied
            Conflict: events behind `after` are no longer kept.
        """
        tenant, request = caller.needs(Scope.TRANSCRIBE), self._requests.get(stream_id)
        theirs = request is not None and request.caller.tenant == tenant
        stream = self._streams.get(stream_id) if theirs else None
        if stream is None or not hmac.compare_digest(stream.token.encode(), token.encode()):
            raise NotFound("there is no such stream here, or it can no longer be resumed; open a new one")
        again = self._streams[stream_id] = stream.resumed(after)
        return again

    def drain(self) -> int:
        """Accept no more; those that are open have their finals told and end with ShuttingDown. Returns how
        many there are."""
        self._leaving = True
        streams = [stream for stream in self._streams.values() if not stream.over]
        for stream in streams:
            if stream.keeping is not None:
                stream.keeping.hurry()
            stream.leave()
        return len(streams)

    def close(self) -> None:
        """Blocks until all threads have ended."""
        self._leaving = True
        self._openers.shutdown(wait=True, cancel_futures=True)
        for stream in list(self._streams.values()):
            stream.end()
        self._pumps.shutdown(wait=True, cancel_futures=True)
        if self._ears is not None:
            self._ears.close()
        if self._desk is not None:
            self._desk.close()

    # -- inside

    def _admit(self, tenant: str) -> None:
        if self._leaving:
            raise ShuttingDown("the server is shutting down", retry_after_s=5)
        now = time.monotonic()
        alive = [
            (s.opened_at, self._requests[s.id].caller.tenant) for s in self._streams.values() if not s.over
        ]
        alive += self._opening.values()
        retry_after_s = self._admission.retry_after_s(
            now, opened_at=(at for at, _ in alive), queued_s=0.0, audio_s_per_s=None
        )
        if retry_after_s is not None:
            raise Overloaded("there are as many streams as may be", retry_after_s=retry_after_s)
        if sum(own == tenant for _, own in alive) >= self._limits.max_sessions_per_tenant:
            raise Overloaded("there are as many streams of this key as may be", retry_after_s=_FULL_RETRY_S)
        lag_s = self._lag_s()
        if lag_s > self._limits.max_lag_s:
            raise Overloaded("the streams there are wait too long already", retry_after_s=max(1.0, lag_s))

    async def _open(self, request: StreamRequest, model_id: str, polish: Polish | None) -> Stream:
        loop = asyncio.get_running_loop()
        stream_id = secrets.token_hex(16)
        work = loop.run_in_executor(self._openers, self._prepare, request, model_id, stream_id, polish)
        try:
            prepared = await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(_give_up)
            raise
        try:
            return self._begin(request, stream_id, prepared, polish)
        except BaseException:
            prepared.give_up()
            raise

    def _prepare(
        self, request: StreamRequest, model_id: str, stream_id: str, polish: Polish | None
    ) -> _Prepared:
        """Blocks: a model may have to be loaded."""
        with self._lock:
            if self._vad is None:
                self._vad = self._make_vad()
            if self._desk is None:
                self._desk = DecodeDesk(aligner=self._aligner, metrics=self._metrics, settlers=_SETTLERS)
                self._desk.warm_up()
            if self._ears is None:
                self._ears = Ears(self._desk, self._metrics)
        ticket = self._engines.open(model_id, Priority.LIVE, request.caller.tenant)
        try:
            aligner = self._aligner()
            spool = None
            if self._keeper is not None and polish is not None:
                spool = self._keeper.spool(stream_id, polish, request.options)
        except BaseException:
            ticket.close()
            raise
        return _Prepared(ticket, self._vad, aligner, spool)

    def _begin(
        self, request: StreamRequest, stream_id: str, prepared: _Prepared, polish: Polish | None
    ) -> Stream:
        if self._leaving:
            raise ShuttingDown("the server is shutting down", retry_after_s=5)
        assert self._ears is not None
        ticket, vad, aligner = prepared.ticket, prepared.vad, prepared.aligner
        languages = aligner.languages if aligner is not None else frozenset()
        capabilities = ticket.capabilities
        limits = self._limits
        idle_s = limits.idle_s if request.idle_s is None else min(request.idle_s, limits.idle_s)
        loop = asyncio.get_running_loop()

        def heard() -> None:
            current = self._streams.get(stream_id)
            if current is not None and current.wants_room:
                loop.call_soon_threadsafe(current.make_room)

        keeping = self._keeping(request, stream_id, prepared, polish, heard)

        def check(options: StreamOptions) -> None:
            make_stream_plan(options, capabilities, languages)
            if keeping is not None:
                keeping.check(options)

        stream = Stream(
            stream_id=stream_id,
            token=secrets.token_urlsafe(24),
            model=ticket.model,
            options=request.options,
            limits=SessionLimits(
                idle_s=idle_s,
                max_session_s=limits.max_session_s,
                unheard_s=limits.max_unheard_s,
                grace_s=limits.grace_s if request.resumable else 0.0,
                keep_events_s=limits.keep_events_s,
            ),
            check=check,
            on_over=self._over,
            on_forgotten=self._forgotten,
        )

        def tell(events: list[StreamEvent], failure: VoiceForgeError | None) -> None:
            loop.call_soon_threadsafe(self._told, stream_id, events, failure)

        def make(options: StreamOptions, channel: int) -> Recogniser:
            return make_recogniser(options, capabilities, languages, vad, channel=channel)

        audio, split = request.audio, request.channels == "split"
        raw = audio if isinstance(audio, RawFormat) else None
        rows = raw.channels if raw is not None and split else 1
        hearing = Hearing(
            self._ears,
            options=request.options,
            ticket=ticket,
            pcm=PushedPcm(raw, rows) if raw is not None else None,
            channels=None if raw is None and split else rows,
            make=make,
            tell=tell,
            heard=heard,
            keep=keeping.hear if keeping is not None else None,
        )
        if isinstance(audio, RawFormat):
            bytes_per_s = SAMPLE_BYTES[audio.encoding] * audio.channels * audio.sample_rate_hz
            intake = Intake(piece_bytes=int(bytes_per_s * _PIECE_S), byte_s=1 / bytes_per_s, put=hearing.put)
        else:
            pump = Pump(
                self._decoders.open(audio, split=split), self._pumps, put=hearing.put, fail=hearing.fail
            )
            intake = Intake(
                piece_bytes=_ENCODED_PIECE_BYTES, byte_s=1 / _ENCODED_BYTES_PER_S, put=pump.put, end=pump.end
            )
        self._streams[stream.id] = stream
        stream.begin(hearing, intake, keeping)
        self._requests[stream.id] = request
        self._metrics.streams_open(self.open_count)
        return stream

    def _told(self, stream_id: str, events: list[StreamEvent], failure: VoiceForgeError | None) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if stream.keeping is not None:
            events = stream.keeping.pass_on(events)
        stream.told(events, failure)

    def _keeping(
        self,
        request: StreamRequest,
        stream_id: str,
        prepared: _Prepared,
        polish: Polish | None,
        room: Callable[[], None],
    ) -> Keeping | None:
        if self._keeper is None or polish is None or prepared.spool is None:
            return None

        def tell(events: Sequence[StreamEvent]) -> None:
            stream = self._streams.get(stream_id)
            if stream is not None:
                stream.told(list(events), None)

        return self._keeper.keeping(
            prepared.spool,
            polish,
            request.options,
            busy=lambda: self._lag_s() > _BUSY_LAG_S,
            tell=tell,
            room=room,
        )

    def _lag_s(self) -> float:
        if self._ears is None or self._desk is None:
            return 0.0
        return max(self._ears.lag_s, self._desk.lag_s)

    def _over(self, stream: Stream) -> None:
        if stream.keeping is not None:
            stream.keeping.over()
        self._book(stream)
        self._admission.ended(time.monotonic() - stream.opened_at, max(stream.duration_s, 1e-3))
        self._metrics.streams_open(self.open_count)

    def _book(self, stream: Stream) -> None:
        request = self._requests.get(stream.id)
        if request is None or request.door is None or stream.duration_s <= 0:
            return
        self._accounts.book(
            Heard(
                caller=request.caller,
                door=request.door,
                model=stream.model.id,
                work_class=Priority.LIVE.name.lower(),
                audio_s=stream.duration_s,
                id=f"stream_{stream.id}",
            )
        )

    def _forgotten(self, stream: Stream) -> None:
        self._streams.pop(stream.id, None)
        self._requests.pop(stream.id, None)


def _give_up(work: asyncio.Future[_Prepared]) -> None:
    if not work.cancelled() and work.exception() is None:
        work.result().give_up()
