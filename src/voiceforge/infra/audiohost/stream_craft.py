"""A member decoding a live stream as it comes.

    order {"stream": how} and bytes ─▶ ◀─ rows, {"more"} and bytes ─▶ … {"end"} ─▶ ◀─ rows, over

The member is the stream's until it ends: libav waits in it for what comes next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from voiceforge.errors import VoiceForgeError
from voiceforge.infra.audiohost.error_json import error_to_json
from voiceforge.infra.audiohost.line import Garbled, Line, Parcel
from voiceforge.speech.audio.conform import Rows
from voiceforge.speech.audio.read_pushed import Feed, decode_pushed
from voiceforge.speech.options import EncodedFormat


class StreamCraft:
    """See `Craft`."""

    def prepare(self) -> None:
        import av
        import soxr

        del av, soxr  # imported, so that no member has to

    def work(self, order: Parcel, line: Line) -> bool:
        def exchange(rows: list[Rows]) -> Sequence[bytes] | None:
            line.send({"over": False, **_shapes(rows)}, [np.ascontiguousarray(one).data for one in rows])
            more = line.receive()
            return None if more.message.get("end") else _pieces(more)

        feed = Feed(_pieces(order), exchange)
        try:
            decode_pushed(feed, format_from_json(order.message["stream"]), split=order.message["split"])
        except VoiceForgeError as error:
            line.send({"error": error_to_json(error), "over": True})
            return False
        rows = feed.rest()
        line.send({"over": True, "fit": True, **_shapes(rows)}, [np.ascontiguousarray(r).data for r in rows])
        return True


def format_to_json(encoded: EncodedFormat | None) -> dict[str, Any] | None:
    return None if encoded is None else asdict(encoded)


def format_from_json(told: dict[str, Any] | None) -> EncodedFormat | None:
    return None if told is None else EncodedFormat(**told)


def rows_from(answer: Parcel) -> list[Rows]:
    """
    Raises:
        Garbled
    """
    try:
        counts = answer.message["rows"]
        return [
            array.view(np.float32).reshape(count, -1)
            for array, count in zip(answer.arrays, counts, strict=True)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise Garbled from error


def _shapes(rows: Sequence[Rows]) -> dict[str, Any]:
    return {"rows": [len(one) for one in rows]}


def _pieces(parcel: Parcel) -> list[bytes]:
    return [array.tobytes() for array in parcel.arrays]
