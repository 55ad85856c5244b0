"""`StreamDecoders` whose work is done by members: what a client sends kills, at worst, the process that reads
its own stream.
"""

from __future__ import annotations

from collections.abc import Sequence

from voiceforge.errors import DecoderCrashed
from voiceforge.infra.audiohost.error_json import error_from_json
from voiceforge.infra.audiohost.line import Garbled, Parcel
from voiceforge.infra.audiohost.pool import Errand, MemberLost, MemberPool
from voiceforge.infra.audiohost.stream_craft import format_to_json, rows_from
from voiceforge.speech.audio.conform import Rows
from voiceforge.speech.audio.stream_decoder import StreamDecoder
from voiceforge.speech.options import EncodedFormat
from voiceforge.telemetry.logger import Logger

STREAM = "stream"
"""The craft."""

_log = Logger(__name__)


class RemoteStreamDecoders:
    """The pool stays its owner's."""

    def __init__(self, pool: MemberPool) -> None:
        self._pool = pool

    def open(self, encoded: EncodedFormat | None, *, split: bool) -> StreamDecoder:
        return _RemoteStreamDecoder(self._pool.errand(STREAM), encoded, split=split)


class _RemoteStreamDecoder:
    def __init__(self, errand: Errand, encoded: EncodedFormat | None, *, split: bool) -> None:
        self._errand = errand
        self._order: dict[str, object] = {"stream": format_to_json(encoded), "split": split}
        self._begun = False
        self._over = False

    def feed(self, pieces: Sequence[bytes]) -> list[Rows]:
        pieces = [piece for piece in pieces if piece]
        if self._over or not pieces:  # a damaged container ended before its client did
            return []
        order: dict[str, object] = {"more": True} if self._begun else self._order
        self._begun = True
        return self._ask(order, pieces)

    def finish(self) -> list[Rows]:
        if self._over or not self._begun:
            return []
        return self._ask({"end": True}, ())

    def close(self) -> None:
        self._errand.cancel()
        self._errand.close()

    def _ask(self, order: dict[str, object], pieces: Sequence[bytes]) -> list[Rows]:
        """What a lost member had read is lost with it: nobody can begin again in the middle."""
        try:
            answer = self._errand.ask(order, [memoryview(piece) for piece in pieces])
            self._over = bool(answer.message.get("over"))
            return self._rows(answer)
        except (MemberLost, Garbled) as error:
            self._over = True
            raise DecoderCrashed("the audio could not be decoded: the decoder broke down on it") from error

    def _rows(self, answer: Parcel) -> list[Rows]:
        if "error" in answer.message:
            raise error_from_json(answer.message["error"])
        if "broken" in answer.message:
            _log.error("decoding failed unexpectedly", trace=str(answer.message["broken"]))
            raise DecoderCrashed("the audio could not be decoded: the decoder broke down on it")
        return rows_from(answer)
