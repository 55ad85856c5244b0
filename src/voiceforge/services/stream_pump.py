"""Encoded audio of a live stream on its way to the ears: decoded step by step, in threads that serve all."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from threading import Lock

from voiceforge.errors import Cancelled, EngineFailed, VoiceForgeError
from voiceforge.services.stream_ears import Close, Order, Piece
from voiceforge.speech.audio.stream_decoder import StreamDecoder
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)


class Pump:
    """Of one stream; what is put comes out in the same order.

    Args:
        put: takes orders whose pieces are rows.
        fail: takes what ended the stream; both from the threads.
    """

    def __init__(
        self,
        decoder: StreamDecoder,
        threads: Executor,
        *,
        put: Callable[[Order], None],
        fail: Callable[[VoiceForgeError], None],
    ) -> None:
        self._decoder = decoder
        self._threads = threads
        self._put = put
        self._fail = fail
        self._lock = Lock()
        self._waiting: deque[Order] = deque()
        self._working = False
        self._ended = False

    def put(self, order: Order) -> None:
        """From the loop."""
        with self._lock:
            self._waiting.append(order)
            if self._working:
                return
            self._working = True
        self._start()

    def end(self) -> None:
        """Nobody listens any more."""
        with self._lock:
            self._ended = True
            self._waiting.clear()
        self._decoder.close()

    def _start(self) -> None:
        try:
            self._threads.submit(self._work)
        except RuntimeError:  # closed: nobody listens any more
            return

    def _work(self) -> None:
        """One step, then the others' turn."""
        with self._lock:
            orders = list(self._waiting)
            self._waiting.clear()
        try:
            self._step(orders)
        except Cancelled:
            return
        except VoiceForgeError as error:
            self._fail(error)
            return
        except Exception:
            _log.exception("a stream could not be decoded")
            self._fail(EngineFailed("decoding failed on our side"))
            return
        with self._lock:
            self._working = bool(self._waiting) and not self._ended
            if not self._working:
                return
        self._start()

    def _step(self, orders: list[Order]) -> None:
        pieces: list[Piece] = []
        for order in orders:
            if isinstance(order, Piece):
                pieces.append(order)
                continue
            self._decode(pieces)
            pieces = []
            if isinstance(order, Close):
                self._put(Piece(self._decoder.finish(), time.monotonic(), 0.0))
            self._put(order)
        self._decode(pieces)

    def _decode(self, pieces: list[Piece]) -> None:
        if not pieces:
            return
        data = [bytes(piece.audio) for piece in pieces if isinstance(piece.audio, bytes | memoryview)]
        rows = self._decoder.feed(data)
        self._put(Piece(rows, pieces[0].at, sum(piece.heard for piece in pieces)))
