"""Worker processes that share the memory of what they imported. Linux; elsewhere each is started by itself.

    first process ─ starts ─▶ nursery ─ forks ─▶ workers, which are the first process's once the nursery ends

The nursery imports what workers need, has one thread, and does nothing but fork: that is why it is safe.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # prctl.h


class Adopted:
    """A child that another process made for this one; as much of `subprocess.Popen` as is needed."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._ended(os.WNOHANG)

    def wait(self) -> int:
        code = self._ended(0)
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, how: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def hatched(
    command: Sequence[str], orders: Sequence[int], *, inherited: Sequence[int], env: Mapping[str, str]
) -> list[Adopted]:
    """A worker for each order, in their order; fewer where something is in the way. Blocks until they live.

    Args:
        command: runs a program that calls `hatch` with the arguments that come after it.
        orders, inherited: descriptors that they get; of `orders` each its own.
    """
    if not sys.platform.startswith("linux") or not _adopt_orphans(True):
        return []
    heard, told = os.pipe()
    try:
        with (
            os.fdopen(heard, "rb") as pids,
            subprocess.Popen(  # noqa: S603
                [*command, str(told), *map(str, orders)],
                stdin=subprocess.DEVNULL,
                pass_fds=[told, *orders, *inherited],
                env=dict(env),
                process_group=0,  # a terminal's Ctrl-C shall reach them once, through us
            ),
        ):
            os.close(told)
            return [Adopted(int(line)) for line in pids]
    finally:
        _adopt_orphans(False)


def hatch(told: int, *orders: int) -> int:
    """Inside the nursery. Returns in each worker: the descriptor of its order.

    Args:
        told: a descriptor to write the workers' pids to.
    """
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        os._exit(0)  # a thread that was working would stand still in the midst of it
    gc.collect()
    gc.freeze()  # the collector would write to every object, and so copy every page
    for order in orders:
        pid = os.fork()
        if pid == 0:
            os.setpgid(0, 0)
            for other in {told, *orders} - {order}:
                os.close(other)
            return order
        os.write(told, b"%d\n" % pid)
    os._exit(0)


def _adopt_orphans(on: bool) -> bool:
    """Whether the system lets this process."""
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0) == 0)
