"""Who decodes a live stream's encoded audio, wherever it is done."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Protocol

from voiceforge.errors import Cancelled
from voiceforge.speech.audio.conform import Rows
from voiceforge.speech.audio.read_pushed import Feed, decode_pushed
from voiceforge.speech.options import EncodedFormat


class StreamDecoder(Protocol):
    """Of one stream; one thread at a time, but for `close`."""

    def feed(self, pieces: Sequence[bytes]) -> list[Rows]:
        """Decode what was pushed; blocks for as long as that takes. What more must come for stays inside.

        Raises:
            InvalidAudio: it cannot be decoded.
        """
        ...

    def finish(self) -> list[Rows]:
        """What is left. The last call. Raises as `feed`."""
        ...

    def close(self) -> None:
        """Let go of everything. Idempotent; from any thread."""
        ...


class StreamDecoders(Protocol):
    def open(self, encoded: EncodedFormat | None, *, split: bool) -> StreamDecoder:
        """Costs nothing yet.

        Args:
            encoded: None: found by content. split: a row for each channel.
        """
        ...


class LocalStreamDecoders:
    """In this process: each stream has a thread in which libav waits for more."""

    def open(self, encoded: EncodedFormat | None, *, split: bool) -> StreamDecoder:
        return _LocalStreamDecoder(encoded, split=split)


class _LocalStreamDecoder:
    def __init__(self, encoded: EncodedFormat | None, *, split: bool) -> None:
        self._encoded = encoded
        self._split = split
        self._in: SimpleQueue[Sequence[bytes] | Cancelled | None] = SimpleQueue()
        self._out: SimpleQueue[list[Rows] | Exception] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._over = False

    def feed(self, pieces: Sequence[bytes]) -> list[Rows]:
        return self._ask(pieces)

    def finish(self) -> list[Rows]:
        return self._ask(None)

    def close(self) -> None:
        self._in.put(Cancelled("the stream is over"))

    def _ask(self, pieces: Sequence[bytes] | None) -> list[Rows]:
        if self._over:  # a damaged container ended before its client did
            return []
        self._in.put(pieces)
        if self._thread is None:
            self._thread = threading.Thread(target=self._decode, name="stream-decoder", daemon=True)
            self._thread.start()
        answer = self._out.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _decode(self) -> None:
        feed = Feed((), self._exchange)
        self._asked = False
        try:
            decode_pushed(feed, self._encoded, split=self._split)
            answer: list[Rows] | Exception = feed.rest()
        except Exception as error:  # whatever it is, it is for who asked, and waits
            answer = error
        self._over = True
        self._out.put(answer)

    def _exchange(self, rows: list[Rows]) -> Sequence[bytes] | None:
        if self._asked:
            self._out.put(rows)
        self._asked = True
        order = self._in.get()
        if isinstance(order, Cancelled):
            raise order
        return order
