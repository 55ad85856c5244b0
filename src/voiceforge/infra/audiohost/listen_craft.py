"""A member listening to a recording: as far as it is asked to, and not beyond.

    order {"listen": how, "skip": events} and the file ─▶ … ◀─ answer, {"more"} ─▶ … ◀─ answer, over

An answer comes as soon as there is a window to recognise, or after a moment without one.
"""

from __future__ import annotations

import io
import os
import time
import wave
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

from voiceforge.errors import VoiceForgeError
from voiceforge.infra.audiohost.error_json import error_to_json
from voiceforge.infra.audiohost.event_json import events_to_json, options_from_json
from voiceforge.infra.audiohost.line import Line, Parcel
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.read_libav import LibavReader
from voiceforge.speech.pipeline.listen import Ended, Heard, ListenEvent, ListenOptions, listen
from voiceforge.speech.vad.silero import SileroModel

_ENOUGH_S = 0.02
"""With a window to give. A clip is over sooner, and its end then comes with it."""
_LONGEST_S = 0.25


class ListenCraft:
    """See `Craft`."""

    def __init__(self) -> None:
        self._vad: SileroModel | None = None

    def prepare(self) -> None:
        if self._vad is None:
            self._vad = SileroModel()
            _practise(self._vad)

    def work(self, order: Parcel, line: Line) -> bool:
        assert self._vad is not None
        source: bytes | BinaryIO
        if order.descriptor is None:
            source = order.arrays[0].tobytes()
        else:
            source = os.fdopen(order.descriptor, "rb", buffering=0)
        wish = options_from_json(order.message["listen"])
        try:
            with open_audio(source, raw=wish.raw, channels=wish.channels, limits=wish.limits) as stream:
                events = islice(listen(stream, self._vad, wish), order.message["skip"], None)
                for events_now in _portions(events):
                    over = isinstance(events_now[-1], Ended)
                    message, arrays = events_to_json(events_now)
                    line.send({**message, "over": over, "fit": over}, arrays)
                    if not over:
                        line.receive()
            return True
        except VoiceForgeError as error:
            line.send({"error": error_to_json(error), "over": True})
            return False
        finally:
            if not isinstance(source, bytes):
                source.close()


def _portions(events: Iterator[ListenEvent]) -> Iterator[list[ListenEvent]]:
    began = time.monotonic()
    portion: list[ListenEvent] = []
    windows = 0
    for event in events:
        portion.append(event)
        windows += len(event.windows) if isinstance(event, Heard) else 0
        if isinstance(event, Ended) or time.monotonic() - began >= (_ENOUGH_S if windows else _LONGEST_S):
            yield portion
            began, portion, windows = time.monotonic(), [], 0


def _practise(vad: SileroModel) -> None:
    """What libraries do on first use is then done, and its memory shared by all members."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8_000)
        writer.writeframes(bytes(2 * 8_000))
    quiet = file.getvalue()
    with open_audio(quiet) as stream:
        for _ in listen(stream, vad, ListenOptions(longest_window_s=30.0, best_window_s=10.0)):
            pass
    reader = LibavReader(io.BytesIO(quiet), len(quiet))
    for _ in reader.pieces():
        pass
    reader.close()
