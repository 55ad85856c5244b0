"""The thread in which all live streams of a process are heard: voice detection and recognisers run here.

    loop ─ put(…) ─▶ inbox of a Hearing ─▶ the ears' rounds ─ tell(events) ─▶ loop

A round visits every stream that something came for. Between two rounds is a pause, so that what comes in
small pieces is heard in larger ones; the busier the ears, the longer it gets, and they never take more than
their share of a processor from the event loop beside them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from voiceforge.errors import EngineFailed, VoiceForgeError
from voiceforge.services.stream_decodes import DecodeDesk, SessionDesk
from voiceforge.speech.audio.conform import Rows
from voiceforge.speech.audio.pushed_pcm import PushedPcm
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.tickets import Ticket
from voiceforge.speech.options import StreamOptions
from voiceforge.speech.pipeline.recogniser import (
    DecodeDropped,
    DecodeResult,
    DecodeWanted,
    Recogniser,
    RecogniserOutput,
)
from voiceforge.speech.transcript.stream_events import Closed, Final, Flushed, Interim, StreamEvent
from voiceforge.telemetry.logger import Logger
from voiceforge.telemetry.metrics import Metrics

_PAUSE_S = 0.03
"""The frames of the voice detector are 32 ms."""
_PAUSE_PER_WORK = 3.0
"""Voice detection of 32 ms costs twice as much as that of 200 ms in one call, for each of its frames."""
_LONGEST_PAUSE_S = 0.25
_VISIT_S = 2.0
"""Audio of one stream in one visit; the rest waits for the next, so that nobody holds up the others."""
_LATELY_S = 2.0
_ARRIVALS = 256
"""Pieces of audio of which it is remembered when they came."""

_log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class Piece:
    """Audio as it came. at: when, by the steady clock. heard: what it counts as once it was heard."""

    audio: bytes | memoryview | Sequence[Rows]
    at: float
    heard: float


@dataclass(frozen=True, slots=True)
class Finalize:
    pass


@dataclass(frozen=True, slots=True)
class Configure:
    options: StreamOptions


@dataclass(frozen=True, slots=True)
class Close:
    pass


@dataclass(frozen=True, slots=True)
class _Answer:
    channel: int
    wish: int
    result: DecodeResult


Order = Piece | Finalize | Configure | Close | _Answer

Tell = Callable[[list[StreamEvent], VoiceForgeError | None], None]
"""Events in order, and what ended the stream, if that; from the ears' thread."""
MakeRecogniser = Callable[[StreamOptions, int], Recogniser]


class Hearing:
    """One stream as the ears see it.

    Args:
        pcm: reads the bytes of pieces; None where they come as rows.
        channels: how many are heard apart; None: as many as the first rows have.
        make: a recogniser for one channel.
        tell: takes what comes of it. heard: called after every piece. keep: takes what is heard.
    """

    def __init__(
        self,
        ears: Ears,
        *,
        options: StreamOptions,
        ticket: Ticket,
        pcm: PushedPcm | None,
        channels: int | None,
        make: MakeRecogniser,
        tell: Tell,
        heard: Callable[[], None],
        keep: Callable[[Rows], None] | None = None,
    ) -> None:
        self._ears = ears
        self._options = options
        self._ticket = ticket
        self._pcm = pcm
        self._make = make
        self._tell = tell
        self._heard = heard
        self._keep = keep
        self._inbox: deque[Order] = deque()
        self._recognisers: list[Recogniser] = []
        self._desks: list[SessionDesk] = []
        self._arrivals: deque[tuple[float, float]] = deque(maxlen=_ARRIVALS)
        self._flushed: list[int] = []
        self._flushes_told = 0
        self._closed = 0
        self._first_interim_told = False
        self._failure: VoiceForgeError | None = None
        self.over = False
        self.queued = False
        self.queued_at = 0.0
        self.heard = 0.0
        """Of all pieces so far; read by the loop."""
        self.samples = 0
        if channels is not None:
            self._begin(channels)

    @property
    def channels(self) -> int:
        return max(1, len(self._recognisers))

    def put(self, order: Order, *, soon: bool = False) -> None:
        """From any thread. soon: not to wait for the next round."""
        self._inbox.append(order)
        self._ears.visit(self, soon=soon)

    def fail(self, error: VoiceForgeError) -> None:
        """From any thread: the stream is over."""
        self._failure = self._failure or error
        self._ears.visit(self, soon=True)

    def give_up(self) -> None:
        """Nobody listens any more. From any thread."""
        self.over = True
        self._ticket.close()
        for desk in list(self._desks):
            desk.close()

    # -- in the ears' thread

    def visit(self) -> bool:
        """Hear what has come; whether something is left for another visit."""
        self.queued = False
        events: list[StreamEvent] = []
        try:
            again = self._work(events)
        except VoiceForgeError as error:
            self._failure, again = self._failure or error, False
        except Exception:
            _log.exception("a stream broke")
            self._failure, again = EngineFailed("recognition failed on our side"), False
        if self._failure is not None and not self.over:
            self.give_up()
            self._tell(events, self._failure)
        elif events:
            if isinstance(events[-1], Closed):
                self.give_up()
            self._tell(events, None)
        return again and not self.over

    def _work(self, events: list[StreamEvent]) -> bool:
        audio_s = 0.0
        while self._inbox and not self.over and self._failure is None:
            if audio_s > _VISIT_S:
                return True
            match self._inbox.popleft():
                case Piece() as piece:
                    audio_s += self._hear(piece, events)
                case _Answer(channel, wish, result):
                    self._take(channel, self._recognisers[channel].decoded(wish, result), events)
                case Finalize():
                    if not self._recognisers:  # nothing was heard yet, so nothing is open
                        events.append(Flushed(0.0))
                    for channel, recogniser in enumerate(self._recognisers):
                        self._take(channel, recogniser.finalize(), events)
                case Configure(options):
                    self._options = options
                    for channel, recogniser in enumerate(self._recognisers):
                        self._take(channel, recogniser.configure(options), events)
                case Close():
                    self._close(events)
        return False

    def _begin(self, channels: int) -> None:
        for channel in range(channels):
            self._recognisers.append(self._make(self._options, channel))
            self._desks.append(self._ears.desk.session(self._ticket, self._answerer(channel), self.fail))
            self._flushed.append(0)

    def _answerer(self, channel: int) -> Callable[[int, DecodeResult], None]:
        return lambda wish, result: self.put(_Answer(channel, wish, result), soon=True)

    def _hear(self, piece: Piece, events: list[StreamEvent]) -> float:
        if isinstance(piece.audio, bytes | memoryview):
            assert self._pcm is not None
            blocks: Sequence[Rows] = self._pcm.push(piece.audio)
        else:
            blocks = piece.audio
        samples = self._listen(blocks, events)
        self._arrivals.append((self.samples / SAMPLE_RATE_HZ, piece.at))
        self.heard += piece.heard
        self._heard()
        return samples / SAMPLE_RATE_HZ

    def _listen(self, blocks: Sequence[Rows], events: list[StreamEvent]) -> int:
        samples = 0
        for rows in blocks:
            if not self._recognisers:
                self._begin(len(rows))
            if self._keep is not None:
                self._keep(rows)
            for channel, recogniser in enumerate(self._recognisers):
                self._take(channel, recogniser.push(rows[channel]), events)
            samples += rows.shape[1]
            self.samples += rows.shape[1]
        return samples

    def _close(self, events: list[StreamEvent]) -> None:
        if self._pcm is not None:
            self._listen(self._pcm.flush(), events)
        if not self._recognisers:
            events.append(Closed(0.0))
        for channel, recogniser in enumerate(self._recognisers):
            self._take(channel, recogniser.close(), events)

    def _take(self, channel: int, outputs: Sequence[RecogniserOutput], events: list[StreamEvent]) -> None:
        for output in outputs:
            match output:
                case DecodeWanted():
                    self._desks[channel].want(output)
                case DecodeDropped():
                    self._desks[channel].drop(output.id)
                case Flushed():
                    # All channels were asked; the last one answers for all of them.
                    self._flushed[channel] += 1
                    if min(self._flushed) > self._flushes_told:
                        self._flushes_told += 1
                        events.append(output)
                case Closed():
                    self._closed += 1
                    if self._closed == len(self._recognisers):
                        events.append(Closed(self.samples / SAMPLE_RATE_HZ))
                case _:
                    self._measure(output)
                    events.append(output)

    def _measure(self, event: StreamEvent) -> None:
        if isinstance(event, Interim):
            if not self._first_interim_told:
                self._first_interim_told = True
                self._ears.metrics.first_interim(time.monotonic() - self._arrived(event.start))
        elif isinstance(event, Final):
            self._first_interim_told = False
            if event.segments:
                self._ears.metrics.final_told(time.monotonic() - self._arrived(event.segments[-1].end))

    def _arrived(self, position_s: float) -> float:
        """When the audio at a position came in."""
        at = time.monotonic()
        for end_s, came in reversed(self._arrivals):
            if end_s < position_s:
                break
            at = came
        return at


class Ears:
    """One thread for all streams. Thread-safe.

    Args:
        desk: where wishes to decode go.
    """

    def __init__(self, desk: DecodeDesk, metrics: Metrics) -> None:
        self.desk = desk
        self.metrics = metrics
        self._changed = threading.Condition()
        self._waiting: deque[Hearing] = deque()
        self._soon: deque[Hearing] = deque()
        self._stopped = False
        self._idle = False
        self._lag_s = 0.0
        self._round_at = 0.0
        self._thread = threading.Thread(target=self._run, name="ears", daemon=True)
        self._thread.start()

    @property
    def lag_s(self) -> float:
        """How long streams wait to be visited, lately."""
        return self._lag_s if time.monotonic() - self._round_at < _LATELY_S else 0.0

    def visit(self, hearing: Hearing, *, soon: bool) -> None:
        if hearing.queued and not soon:
            return  # what was put is there when its turn comes
        if not hearing.queued:
            hearing.queued_at = time.monotonic()
        hearing.queued = True
        with self._changed:
            (self._soon if soon else self._waiting).append(hearing)
            if soon or self._idle:
                self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        next_round = 0.0
        while (batch := self._next(next_round)) is not None:
            hearings, is_round = batch
            began = time.monotonic()
            oldest = min(hearing.queued_at for hearing in hearings)
            again = [hearing for hearing in hearings if hearing.visit()]
            for hearing in again:
                self.visit(hearing, soon=False)
            ended = time.monotonic()
            if is_round:
                next_round = ended + min(max(_PAUSE_S, _PAUSE_PER_WORK * (ended - began)), _LONGEST_PAUSE_S)
                if again:  # behind: there is no time for pauses
                    next_round = ended
                self._lag_s += 0.2 * (ended - oldest - self._lag_s)
                self._round_at = ended
                self.metrics.stream_lag(self._lag_s)

    def _next(self, next_round: float) -> tuple[list[Hearing], bool] | None:
        """Wait for what is to be visited next, and whether that is a whole round. None: the end."""
        with self._changed:
            while not self._stopped:
                left_s = next_round - time.monotonic()
                is_round = bool(self._waiting) and left_s <= 0
                if self._soon or is_round:
                    batch = dict.fromkeys(self._soon)
                    self._soon.clear()
                    if is_round:  # however much is wanted soon, the others have their turn
                        batch |= dict.fromkeys(self._waiting)
                        self._waiting.clear()
                    return list(batch), is_round
                self._idle = not self._waiting
                self._changed.wait(left_s if self._waiting else None)
                self._idle = False
            return None
