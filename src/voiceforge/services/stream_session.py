"""One live stream as surfaces see it: what it takes, what it tells, and who still waits for it."""

from __future__ import annotations

import asyncio
import copy
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voiceforge.errors import Conflict, DeadlineExceeded, Overloaded, ShuttingDown, VoiceForgeError
from voiceforge.services.stream_ears import Close, Configure, Finalize, Hearing, Order, Piece
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.options import StreamOptions
from voiceforge.speech.transcript.stream_events import Closed, Interim, StreamEvent
from voiceforge.speech.transcript.types import ModelRef

if TYPE_CHECKING:  # it brings the database with it
    from voiceforge.services.stream_keeping import Keeping

_MOST_UNREAD = 2_000
"""Events, interims left out: many minutes of speech that nobody has read."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event with its number: they count from 1 and never go back; some may be missing, where an interim
    was replaced before it was read."""

    number: int
    event: StreamEvent


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """grace_s: how long a stream that can be resumed waits for its client; 0: it cannot. keep_events_s: how
    long events are kept for that. unheard_s: audio that may wait."""

    idle_s: float
    max_session_s: float
    unheard_s: float
    grace_s: float
    keep_events_s: float


class Intake:
    """How what is pushed comes to the ears.

    Args:
        piece_bytes: more than that is taken in pieces. byte_s: what one byte counts as, in seconds of audio.
        put: takes orders in turn.
    """

    def __init__(
        self,
        *,
        piece_bytes: int,
        byte_s: float,
        put: Callable[[Order], None],
        end: Callable[[], None] = lambda: None,
    ) -> None:
        self.piece_bytes = piece_bytes
        self.byte_s = byte_s
        self.put = put
        self.end = end


class Stream:
    """One live stream. Belongs to the event loop that opened it; made by `Streams`."""

    def __init__(
        self,
        *,
        stream_id: str,
        token: str,
        model: ModelRef,
        options: StreamOptions,
        limits: SessionLimits,
        check: Callable[[StreamOptions], None],
        on_over: Callable[[Stream], None],
        on_forgotten: Callable[[Stream], None],
    ) -> None:
        self._id = stream_id
        self._token = token
        self._model = model
        self._options = options
        self._limits = limits
        self._check = check
        self._on_over = on_over
        self._on_forgotten = on_forgotten
        self._loop = asyncio.get_running_loop()
        self._opened_at = self._active_at = time.monotonic()
        self._hearing: Hearing | None = None
        self._intake: Intake | None = None
        self._pushed_s = 0.0
        self._received_bytes = 0
        self._room = asyncio.Event()
        self._wants_room = False
        self._pushing = asyncio.Lock()
        self._closing = False
        self._leaving = False
        self._over = False
        self._failure: VoiceForgeError | None = None
        self._number = 0
        self._unread: deque[Told] = deque()
        self._kept: deque[tuple[float, Told]] = deque()
        self._forgotten = 0
        self._news = asyncio.Event()
        self._replaced = False
        self._detached = False
        self._timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        self.keeping: Keeping | None = None

    def begin(self, hearing: Hearing, intake: Intake, keeping: Keeping | None) -> None:
        """For `Streams`: from here on it is heard."""
        self._hearing, self._intake, self.keeping = hearing, intake, keeping
        self._watch()

    @property
    def id(self) -> str:
        return self._id

    @property
    def token(self) -> str:
        """The secret that `Streams.resume` asks for."""
        return self._token

    @property
    def model(self) -> ModelRef:
        return self._model

    @property
    def options(self) -> StreamOptions:
        """As wished for last."""
        return self._options

    @property
    def channels(self) -> int:
        """How many are heard apart; of encoded audio not known before its header, until then 1."""
        return 1 if self._hearing is None else self._hearing.channels

    @property
    def received_bytes(self) -> int:
        """What `push` has taken so far, by all connections of this stream together."""
        return self._received_bytes

    @property
    def duration_s(self) -> float:
        """Seconds of audio heard so far."""
        return 0.0 if self._hearing is None else self._hearing.samples / SAMPLE_RATE_HZ

    @property
    def document_id(self) -> str | None:
        """Of the transcription kept of this session; None where none is, or not yet."""
        return None if self.keeping is None else self.keeping.transcription_id

    @property
    def opened_at(self) -> float:
        """By the steady clock."""
        return self._opened_at

    @property
    def over(self) -> bool:
        """Nothing is heard for it any more, and it takes no place."""
        return self._over

    # -- the verbs

    async def push(self, data: bytes) -> None:
        """Take some more audio; waits while too much is unheard. Any number of bytes, also none; of raw Opus
        packets exactly one.

        Raises:
            InvalidAudio: it cannot be decoded.
            Conflict: after `close`.
            VoiceForgeError: what ended the stream.
        """
        intake = self._taking()
        self._active_at = time.monotonic()
        if len(data) <= intake.piece_bytes and self._has_room() and not self._pushing.locked():
            self._take(intake, data)
            return
        async with self._pushing:
            for first in range(0, len(data), intake.piece_bytes):
                await self._wait_for_room()
                self._take(self._taking(), memoryview(data)[first : first + intake.piece_bytes])

    def keep_alive(self) -> None:
        """The client is there, though it sends no audio."""
        self._active_at = time.monotonic()

    async def finalize(self) -> None:
        """Have what was pushed before told as finals now, then `Flushed`. Raises as `push` does, without
        waiting for either."""
        self._taking().put(Finalize())
        self.keep_alive()

    async def configure(self, options: StreamOptions) -> None:
        """From the next utterance on; raises as `push` does, and:

        Raises:
            UnsupportedOption: the model cannot; all stays as it was.
        """
        intake = self._taking()
        self._check(options)
        intake.put(Configure(options))
        self._options = options
        if self.keeping is not None:
            self.keeping.configure(options)
        self.keep_alive()

    async def close(self) -> None:
        """No more audio comes. The finals of all that was pushed follow, then `Closed`. Idempotent; does not
        wait for them."""
        self._close()

    def abort(self) -> None:
        """The client is gone: `events` ends. What is resumable waits for it; all else is given up at once.
        Idempotent."""
        if self._replaced:
            return
        self._news.set()
        if self._limits.grace_s <= 0:
            self._end()
            self._unread.clear()
            self._forget()
        elif not self._detached:
            self._detached = True
            if self._end_timer is None:
                self._end_timer = self._loop.call_later(self._limits.grace_s, self._give_up)

    async def events(self) -> AsyncIterator[StreamEvent]:
        """Everything in order, by one reader; ends after `Closed`.

        Raises:
            VoiceForgeError: what ended the stream; ShuttingDown, after the finals of all that was pushed,
                where the server leaves; DeadlineExceeded where nothing came for too long.
        """
        async for told in self.numbered():
            yield told.event

    async def numbered(self) -> AsyncGenerator[Told, None]:
        """As `events`, each with its number.

        Raises: also Conflict, where another connection resumed the stream.
        """
        while True:
            while self._unread and not self._detached:
                told = self._unread.popleft()
                yield told
                if isinstance(told.event, Closed):
                    return
            if self._failure is not None:
                raise self._failure
            if self._over or self._detached:
                return
            self._news.clear()
            await self._news.wait()

    # -- for `Streams`

    def resumed(self, after: int) -> Stream:
        """The stream for a client that is there again and has read up to event number `after`. This one is of
        no use any more: whatever its connection still does with it has no effect.

        Raises:
            Conflict: what follows is no longer kept.
        """
        if not self._forgotten <= after <= self._number:
            raise Conflict("the events that follow are no longer kept; open a new stream")
        again = copy.copy(self)
        again._detached, again._wants_room = False, False
        again._active_at = time.monotonic()
        again._unread = deque(told for _, told in self._kept if told.number > after)
        again._room, again._news, again._pushing = asyncio.Event(), asyncio.Event(), asyncio.Lock()
        for timer in (self._timer, None if self._over else self._end_timer):
            if timer is not None:
                timer.cancel()
        if not self._over:
            again._end_timer = None
            again._watch()
        self._replaced = True
        self._failure = Conflict("another connection has taken this stream over")
        self._unread = deque()
        self._news.set()
        self._room.set()
        return again

    def leave(self) -> None:
        """The server is about to go: have everything told, then say so."""
        self._leaving = True
        if self._detached:
            self._give_up()
        else:
            self._close()

    def told(self, events: list[StreamEvent], failure: VoiceForgeError | None) -> None:
        """From the ears, in the loop."""
        if self._over:
            return
        now = time.monotonic()
        for event in events:
            if isinstance(event, Closed) and self._leaving:
                failure = ShuttingDown("the server is shutting down", retry_after_s=5)
                break
            self._tell(event, now)
        if failure is not None:
            self._failure = failure
        elif len(self._unread) > _MOST_UNREAD and not self._detached:
            self._failure = Overloaded("the events of this stream are not read")
        if self._failure is not None or (events and isinstance(events[-1], Closed)):
            self._end()
        self._news.set()

    def end(self) -> None:
        """Whatever is under way: from any thread, once the loop does nothing more."""
        if self._hearing is not None:
            self._hearing.give_up()
        if self._intake is not None:
            self._intake.end()

    def make_room(self) -> None:
        """From the ears, in the loop: something was heard."""
        if self._wants_room and self._has_room():
            self._room.set()

    @property
    def wants_room(self) -> bool:
        return self._wants_room

    # -- inside

    def _taking(self) -> Intake:
        if self._failure is not None:
            raise self._failure
        if self._closing or self._over or self._intake is None:
            if self._leaving:
                raise ShuttingDown("the server is shutting down", retry_after_s=5)
            raise Conflict("the stream is closed")
        return self._intake

    def _take(self, intake: Intake, data: bytes | memoryview) -> None:
        seconds = len(data) * intake.byte_s
        self._pushed_s += seconds
        self._received_bytes += len(data)
        intake.put(Piece(data, time.monotonic(), seconds))

    def _has_room(self) -> bool:
        heard_s = 0.0 if self._hearing is None else self._hearing.heard
        if self._pushed_s - heard_s >= self._limits.unheard_s:
            return False
        return self.keeping is None or self.keeping.has_room()

    async def _wait_for_room(self) -> None:
        while not self._has_room():
            self._taking()
            self._room.clear()
            self._wants_room = True
            if not self._has_room():  # the ears look at the wish after they have heard something
                await self._room.wait()
            self._wants_room = False
            self._active_at = time.monotonic()

    def _close(self) -> None:
        if self._closing or self._over or self._replaced or self._intake is None:
            return
        self._closing = True
        self._intake.put(Close())

    def _tell(self, event: StreamEvent, now: float) -> None:
        self._number += 1
        told = Told(self._number, event)
        if self._unread and _replaces(event, self._unread[-1].event):
            self._unread.pop()
        if not self._detached:
            self._unread.append(told)
        if self._limits.grace_s <= 0:
            return
        if self._kept and _replaces(event, self._kept[-1][1].event):
            self._kept.pop()
        self._kept.append((now, told))
        oldest = now - self._limits.keep_events_s
        while not self._detached and self._kept[0][0] < oldest:
            self._forgotten = self._kept.popleft()[1].number

    def _watch(self) -> None:
        """Look after idleness and age, as seldom as will do."""
        if self._over or self._replaced:
            return
        now = time.monotonic()
        idle_s = now - self._active_at
        age_s = now - self._opened_at
        if age_s >= self._limits.max_session_s:
            self._close()
            return
        if idle_s >= self._limits.idle_s and not (self._detached or self._closing or self._wants_room):
            self._failure = DeadlineExceeded(f"no audio came for {self._limits.idle_s:g} s")
            self._end()
            self._news.set()
            return
        next_s = min(self._limits.max_session_s - age_s, max(self._limits.idle_s - idle_s, 0.05))
        self._timer = self._loop.call_later(next_s, self._watch)

    def _give_up(self) -> None:
        self._end()
        self._forget()

    def _end(self) -> None:
        """It takes no place any more; what it told can still be read."""
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._hearing is not None:
            self._hearing.give_up()
        if self._intake is not None:
            self._intake.end()
        self._room.set()
        self._on_over(self)
        if self._limits.grace_s <= 0:
            self._forget()
        elif self._end_timer is None:
            self._end_timer = self._loop.call_later(self._limits.grace_s, self._forget)

    def _forget(self) -> None:
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None
        self._kept.clear()
        self._news.set()
        self._on_forgotten(self)


def _replaces(event: StreamEvent, before: StreamEvent) -> bool:
    return isinstance(event, Interim) and isinstance(before, Interim) and event.channel == before.channel
