"""A member listening to a recording: as far as it is asked to, and not beyond.

    order {"listen": how, "skip": events} and the file ─▶ … ◀─ answer, {"more"} ─▶ … ◀─ answer, over

The first answer comes as soon as there is a window to recognise. Later ones bring more at a time, since the
engine then has something to do.
"""

from __future__ import annotations

import io
import os
import time
import wave
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import BinaryIO

from voiceforge.errors import VoiceForgeError
from voiceforge.infra.audiohost.error_json import error_to_json
from voiceforge.infra.audiohost.event_json import events_to_json, options_from_json
from voiceforge.infra.audiohost.line import Line, Parcel
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.read_libav import LibavReader
from voiceforge.speech.pipeline.listen import Ended, Heard, ListenEvent, ListenOptions, listen, listen_to
from voiceforge.speech.vad.silero import SileroModel

_FIRST_CPU_S, _LATER_CPU_S = 0.02, 0.1
"""Work for an answer with windows: about 25 and 125 s of audio. Most clips are over with the first."""
_LONGEST_S = 0.25
"""For an answer without."""


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
            with closing(listen_to(source, self._vad, wish)) as heard:
                for events_now in _portions(islice(heard, order.message["skip"], None)):
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
    enough_s = _FIRST_CPU_S
    portion: list[ListenEvent] = []
    has_windows = False
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    for event in events:
        # Looked at before the next one is known to be the end, which costs nothing and shall not wait.
        if portion and not isinstance(event, Ended):
            spent_s = time.process_time() - began_cpu_s
            if (has_windows and spent_s >= enough_s) or time.monotonic() - began_s >= _LONGEST_S:
                yield portion
                enough_s, portion, has_windows = _LATER_CPU_S, [], False
                began_s, began_cpu_s = time.monotonic(), time.process_time()
        portion.append(event)
        has_windows = has_windows or (isinstance(event, Heard) and bool(event.windows))
    yield portion


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
