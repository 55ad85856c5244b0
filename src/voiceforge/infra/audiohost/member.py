"""A member from inside: it gives up what it does not need, then works until nobody wants it any more."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from voiceforge.infra.audiohost.line import Garbled, Line, LineClosed, Parcel

_PR_SET_PDEATHSIG = 1  # prctl.h
NICENESS = 5
"""Below those who answer HTTP, above the engines that wait for what is heard here."""


class Craft(Protocol):
    """A kind of work that members do."""

    def prepare(self) -> None:
        """Load what all members share. Called in the host before it forks, as often as it does; raises our
        errors where a part is missing."""
        ...

    def work(self, order: Parcel, line: Line) -> bool:
        """Do what was ordered; the last answer says `over`. Returns whether this process is fit for more.

        Raises:
            LineClosed: nobody wants the rest.
        """
        ...


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a member is left with.

    more_memory_bytes: address space beyond what the host had. idle_s: it ends after so long without an
    order.
    """

    more_memory_bytes: int = 2 << 30
    idle_s: float = 15.0


def confine(limits: Confinement, host_pid: int) -> None:
    """Nothing here can be undone by this process."""
    os.nice(NICENESS)
    if sys.platform.startswith("linux"):
        # Should the host be killed, nobody else could end a member that is stuck in native code.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != host_pid:
            os._exit(0)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + limits.more_memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)  # it would hold somebody's recording
    _limit(resource.RLIMIT_FSIZE, 0)


def serve(line: Line, craft: Craft, idle_s: float) -> None:
    """Returns when the other side is gone, when it wants nothing for `idle_s`, or after failed work."""
    try:
        line.send({"hello": True})
        while craft.work(line.receive(idle_s), line):
            pass
    except (LineClosed, Garbled, TimeoutError):
        return
    except Exception:  # ours or a library's: the other side has a log to put it in
        with suppress(LineClosed):
            line.send({"broken": traceback.format_exc(), "over": True})


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(kind, (most, most))
