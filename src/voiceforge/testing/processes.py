"""What the system knows of a process."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

_WAIT_S = 30.0
_LOOK_EVERY_S = 0.005


def wait_until_it_takes_signals(pid: int) -> None:
    """Until a process of ours that was just started would not simply be ended by a SIGTERM, or has ended.

    Raises:
        TimeoutError
    """
    status = Path(f"/proc/{pid}/status")
    deadline = time.monotonic() + _WAIT_S
    while not _is_caught(status.read_text()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} takes no signals")
        time.sleep(_LOOK_EVERY_S)


def wait_until_gone(processes: Sequence[psutil.Process]) -> None:
    """Until none of them runs. One that ended may long be known to the system, until whoever started it, or
    the first process, has noticed.

    Raises:
        TimeoutError
    """
    deadline = time.monotonic() + _WAIT_S
    while left := [process.pid for process in processes if _runs(process)]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"still there: {left}")
        time.sleep(_LOOK_EVERY_S)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def _is_caught(status: str) -> bool:
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if fields["State"].startswith("Z"):
        return True
    return bool(int(fields["SigCgt"], 16) & 1 << (signal.SIGTERM - 1))
