"""What recognisers wish to have decoded, on its way to the engine and back.

Finals go at once and are never dropped. Interims go while the engine has little to do, those that waited
for longest first; one that waited too long is shed, and its recogniser wishes for a newer one. So interims
thin out before finals slow down.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from voiceforge.errors import EngineFailed, VoiceForgeError
from voiceforge.speech.alignment.aligner import Aligner
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.base import Hypothesis
from voiceforge.speech.engines.tickets import Ticket
from voiceforge.speech.pipeline.recogniser import DecodeResult, DecodeWanted
from voiceforge.speech.pipeline.stream_final import settle_wish
from voiceforge.telemetry.logger import Logger
from voiceforge.telemetry.metrics import Metrics

_STALE_S = 0.6
"""An interim that waited for so long would show what was said too long ago."""
_SMOOTHING = 0.2
_HALF_LIFE_S = 1.0
"""What finals took a while ago says little about now: many of them come every second where it matters."""

_log = Logger(__name__)

Answer = Callable[[int, DecodeResult], None]
"""Called once for every wish that was not dropped, with its id, from any thread."""
Fail = Callable[[VoiceForgeError], None]


@dataclass(eq=False, slots=True)
class _Wish:
    desk: SessionDesk
    wanted: DecodeWanted
    began: float
    future: Future[Hypothesis] | None = None
    dropped: bool = False

    @property
    def is_interim(self) -> bool:
        return self.wanted.purpose == "interim"


@dataclass(slots=True)
class _Load:
    """Of one model. most: how many decodes may be under way when another interim begins."""

    most: int
    under_way: int = 0
    waiting: OrderedDict[_Wish, None] = field(default_factory=OrderedDict)


class DecodeDesk:
    """Serves all streams of a process. Thread-safe.

    Args:
        settlers: finals that are settled at the same time.
        aligner: called from those threads.
    """

    def __init__(
        self,
        *,
        aligner: Callable[[], Aligner | None],
        metrics: Metrics,
        settlers: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._aligner = aligner
        self._metrics = metrics
        self._clock = clock
        self._lock = threading.Lock()
        self._loads: dict[str, _Load] = {}
        self._finals: OrderedDict[_Wish, None] = OrderedDict()
        self._final_s: float | None = None
        self._final_at = 0.0
        self._settlers = ThreadPoolExecutor(settlers, thread_name_prefix="settle")

    def warm_up(self) -> None:
        """Have the aligner made before the first final waits for it. Does not block."""
        self._settlers.submit(self._align_something)

    def _align_something(self) -> None:
        aligner = self._aligner()
        if aligner is not None:
            aligner.align(np.zeros(SAMPLE_RATE_HZ // 2, np.float32), "a")

    def session(self, ticket: Ticket, answer: Answer, fail: Fail) -> SessionDesk:
        return SessionDesk(self, ticket, answer, fail)

    @property
    def lag_s(self) -> float:
        """How long finals take now, from the wish to the settled words."""
        with self._lock:
            now = self._clock()
            known: float = (self._final_s or 0.0) * 0.5 ** ((now - self._final_at) / _HALF_LIFE_S)
            oldest = next(iter(self._finals), None)
            return known if oldest is None else max(known, now - oldest.began)

    def close(self) -> None:
        self._settlers.shutdown(wait=True, cancel_futures=True)

    # -- for sessions

    def take(self, wish: _Wish) -> None:
        shed = False
        with self._lock:
            load = self._load(wish)
            if not wish.is_interim:
                self._finals[wish] = None
            if wish.wanted.purpose != "final" and load.under_way >= load.most * (1 if wish.is_interim else 2):
                if wish.is_interim:
                    load.waiting[wish] = None
                    return
                shed = True  # a speculation that would have to wait: its final may never be wanted
                self._finals.pop(wish)
        if shed:
            wish.desk.answered(wish, None)
        else:
            self._send(wish)

    def drop(self, wish: _Wish) -> None:
        with self._lock:
            wish.dropped = True
            self._finals.pop(wish, None)
            waited = self._load(wish).waiting.pop(wish, False) is None
        if not waited and wish.future is not None:
            wish.future.cancel()

    def _load(self, wish: _Wish) -> _Load:
        """With the lock held."""
        ticket = wish.desk.ticket
        found = self._loads.get(ticket.model.id)
        if found is None:
            found = self._loads[ticket.model.id] = _Load(ticket.capabilities.parallel_decodes + 1)
        return found

    def _send(self, wish: _Wish) -> None:
        with self._lock:
            self._load(wish).under_way += 1
        try:
            future = wish.desk.ticket.submit(wish.wanted.audio.samples, wish.wanted.plan.decode)
        except VoiceForgeError as error:
            self._over(wish)
            self._broke(wish, error)
            return
        wish.future = future
        if wish.dropped:
            future.cancel()
        future.add_done_callback(partial(self._decoded, wish))

    def _decoded(self, wish: _Wish, future: Future[Hypothesis]) -> None:
        """In a thread of the engine's queue, which must not be kept."""
        self._over(wish)
        if future.cancelled() or wish.dropped:
            with self._lock:
                self._finals.pop(wish, None)
            return
        error = future.exception()
        if error is not None:
            self._broke(wish, error)
        elif wish.is_interim:
            wish.desk.answered(wish, future.result())
        else:
            try:
                self._settlers.submit(self._settle, wish, future.result())
            except RuntimeError:  # closed: nobody waits for it any more
                return

    def _over(self, wish: _Wish) -> None:
        """One decode less is under way: interims that wait have their turn."""
        stale: list[_Wish] = []
        turn: _Wish | None = None
        with self._lock:
            load = self._load(wish)
            load.under_way -= 1
            latest = self._clock() - _STALE_S
            while load.waiting and load.under_way < load.most and turn is None:
                first, _ = load.waiting.popitem(last=False)
                if first.began < latest:
                    stale.append(first)
                else:
                    turn = first
        for shed in stale:
            shed.desk.answered(shed, None)
        if turn is not None:
            self._send(turn)

    def _settle(self, wish: _Wish, hypothesis: Hypothesis) -> None:
        if wish.dropped:
            return
        try:
            settled = settle_wish(wish.wanted, hypothesis, wish.desk.ticket, self._aligner())
        except CancelledError:  # the ticket is closed
            return
        except Exception as error:
            self._broke(wish, error)
            return
        with self._lock:
            if self._finals.pop(wish, False) is None:
                self._note(self._clock() - wish.began)
        wish.desk.answered(wish, settled)

    def _note(self, seconds: float) -> None:
        """With the lock held."""
        before = seconds if self._final_s is None else self._final_s
        self._final_s = before + _SMOOTHING * (seconds - before)
        self._final_at = self._clock()

    def _broke(self, wish: _Wish, error: BaseException) -> None:
        with self._lock:
            self._finals.pop(wish, None)
        if isinstance(error, CancelledError):
            return
        if wish.wanted.purpose != "final":
            wish.desk.answered(wish, None)
        elif isinstance(error, VoiceForgeError):
            wish.desk.failed(error)
        else:
            _log.error("a final could not be settled", problem=type(error).__name__)
            wish.desk.failed(EngineFailed("recognition failed on our side"))


class SessionDesk:
    """The wishes of one channel. `want` and `drop` belong to one thread, all else to any."""

    def __init__(self, desk: DecodeDesk, ticket: Ticket, answer: Answer, fail: Fail) -> None:
        self.ticket = ticket
        self._desk = desk
        self._answer = answer
        self.failed = fail
        self._open: dict[int, _Wish] = {}

    def want(self, wanted: DecodeWanted) -> None:
        wish = _Wish(self, wanted, self._desk._clock())
        self._open[wanted.id] = wish
        self._desk.take(wish)

    def drop(self, wish_id: int) -> None:
        wish = self._open.pop(wish_id, None)
        if wish is not None:
            if wish.is_interim:
                self._desk._metrics.interim_dropped()
            self._desk.drop(wish)

    def answered(self, wish: _Wish, result: DecodeResult) -> None:
        """From any thread."""
        if wish.dropped:
            return
        self._open.pop(wish.wanted.id, None)
        if result is None and wish.is_interim:
            self._desk._metrics.interim_dropped()
        self._answer(wish.wanted.id, result)

    def close(self) -> None:
        """Nobody waits for any of them."""
        for wish_id in list(self._open):
            wish = self._open.pop(wish_id, None)
            if wish is not None:
                self._desk.drop(wish)
