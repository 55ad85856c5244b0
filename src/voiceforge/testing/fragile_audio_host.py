"""An audio host whose members do what a recording tells them to: for tests of what such hosts are good for.

Where a recording begins with one of the words below, that is what happens; any other is listened to. Over
alignments they always break down.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from io import FileIO

from voiceforge.infra.audiohost.host import run_audio_host
from voiceforge.infra.audiohost.line import Line, Parcel
from voiceforge.infra.audiohost.listen_craft import ListenCraft
from voiceforge.infra.audiohost.member import Confinement
from voiceforge.infra.audiohost.remote_aligner import ALIGN
from voiceforge.infra.audiohost.remote_listener import LISTEN

CRASH = b"crash"
"""The process ends as by a fault in native code."""
HANG = b"hang"
"""It never comes back."""
HOARD = b"hoard"
"""It takes memory until it gets no more."""
FAIL = b"fail"
"""It raises what nobody expects."""
GARBLE = b"garble"
"""It answers with what makes no sense."""

IDLE_S = 1.0
MORE_MEMORY_BYTES = 300 << 20

COMMAND = (sys.executable, "-P", "-m", "voiceforge.testing.fragile_audio_host")


class _ObeysRecordings(ListenCraft):
    def work(self, order: Parcel, line: Line) -> bool:
        word = _first_word(order)
        if word == CRASH:
            os.kill(os.getpid(), signal.SIGSEGV)
        if word == HANG:
            time.sleep(3600)
        if word == HOARD:
            kept: list[bytes] = []
            while True:
                kept.append(bytes(1 << 20))
        if word == FAIL:
            raise RuntimeError("as the recording said")
        if word == GARBLE:
            line.send({"events": 1, "windows": [[0, 0, 16_000, []]], "heard": [0, 0.0], "over": True})
            return True
        return super().work(order, line)


class _BreaksDown:
    def prepare(self) -> None:
        """Nothing to load."""

    def work(self, order: Parcel, line: Line) -> bool:
        os.kill(os.getpid(), signal.SIGSEGV)
        return False


def _first_word(order: Parcel) -> bytes:
    if order.descriptor is None:
        start = order.arrays[0][:16].tobytes()
    else:
        file = FileIO(order.descriptor, closefd=False)
        start = file.read(16)
        file.seek(0)
    return start.split(b"\n")[0]


if __name__ == "__main__":
    run_audio_host(
        {LISTEN: _ObeysRecordings(), ALIGN: _BreaksDown()},
        Confinement(more_memory_bytes=MORE_MEMORY_BYTES, idle_s=IDLE_S),
    )
