"""How a process of ours starts and ends sooner. Imports nothing that takes time."""

from __future__ import annotations

import atexit
import gc
import os


def hurry() -> None:
    """Call first of all, before numpy is imported, and `settled` once the process is built.

    No garbage is collected meanwhile, since nearly all that is made stays: looking through it again and
    again takes 4 % of the start of a command, and another 4 % when it ends.
    """
    # numpy's OpenBLAS starts a thread per core, which spin for a while; we multiply no large matrices.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.disable()
    atexit.register(gc.freeze)


def settled() -> None:
    """What is there now is not looked through any more; garbage that comes is collected."""
    gc.freeze()
    gc.enable()
