"""How this process gives memory back to the system. Linux with glibc; elsewhere nothing is done."""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from voiceforge.speech.engines.catalog import Runtime

# malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4

_LARGE_BYTES = 1 << 20
_MOST_KEPT_BYTES = 128 << 20  # at the end of each heap


def return_large_blocks() -> None:
    """Blocks of a MiB and more go back to the system as soon as they are freed.

    glibc raises that limit to 32 MiB by itself once such blocks come and go, and what recognition
    frees then stays with the process: measured, 70 MB at the peak of a 5-minute recording. Setting it leaves
    the other limit at 128 KiB, from which free memory at the end of the heap is given back: less than a piece
    of an upload, so that each one would bring its pages in anew. glibc itself keeps twice the first limit.
    """
    _set({_M_MMAP_THRESHOLD: _LARGE_BYTES, _M_TRIM_THRESHOLD: 2 * _LARGE_BYTES})


def suit_memory_to(runtime: Runtime) -> None:
    """Call when a model of this runtime is loaded, before it is used: what loading freed goes back before.

    CTranslate2 takes and frees its buffers layer by layer, 54 MB at a time in Whisper tiny. A system that
    maps, clears and unmaps them each time takes a quarter of the CPU time of a window (measured: 0.3 s of
    1.2 s in tiny, 2.4 s of 7.2 s in small), so what is freed stays for the next layer. That is 210 MB for
    tiny and 160 MB for small with two calls at a time, until the process ends. Blocks of more than 64 MB,
    which larger models take, still come and go.
    """
    if runtime == "whisper_ct2":
        _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _MOST_KEPT_BYTES})


def _set(limits: dict[int, int]) -> None:
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        for name, value in limits.items():
            mallopt(name, value)
