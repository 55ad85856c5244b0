"""What a process and all that it started take: memory and CPU time, now or watched over time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

MB = 1e6


@dataclass(frozen=True, slots=True)
class TreeSample:
    """A process and all that it started, together.

    at_s: since the watch began. pss_mb: memory with what several share counted once, so that it can be
    added up; where the system does not tell, the same as rss_mb. cpu_s: since the start of the process,
    with that of children that have ended.
    """

    at_s: float
    rss_mb: float
    pss_mb: float
    cpu_s: float
    processes: int
    threads: int


def tree(pid: int) -> list[psutil.Process]:
    """The process and all below it."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def sample(pid: int, at_s: float = 0.0) -> TreeSample:
    """
    Raises:
        psutil.NoSuchProcess: it is gone.
    """
    rss = pss = cpu = 0.0
    processes = threads = 0
    for process in tree(pid):
        with contextlib.suppress(psutil.Error):
            with process.oneshot():
                resident = process.memory_info().rss
                cpu += _cpu_s(process)
                threads += process.num_threads()
            rss += resident
            pss += _pss_bytes(process.pid, resident)
            processes += 1
    return TreeSample(at_s, rss / MB, pss / MB, cpu, processes, threads)


def tree_cpu_s(pid: int) -> float:
    """CPU time since the start of the process, with its children's, those that have ended included."""
    total = 0.0
    for process in tree(pid):
        with contextlib.suppress(psutil.Error):
            total += _cpu_s(process)
    return total


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    ended = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return float(times.user + times.system + ended)


def _pss_bytes(pid: int, otherwise: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return otherwise


class TreeWatch(threading.Thread):
    """Samples a process tree every `every_s` seconds until it is stopped, or the process is gone."""

    def __init__(self, pid: int, every_s: float) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._every_s = every_s
        self._over = threading.Event()
        self._began = time.perf_counter()
        self.samples: list[TreeSample] = []

    def run(self) -> None:
        while True:
            try:
                self.samples.append(sample(self._pid, time.perf_counter() - self._began))
            except psutil.Error:
                return
            if self._over.wait(self._every_s):
                return

    def stop(self) -> None:
        self._over.set()
        self.join()


@contextlib.contextmanager
def watched(pid: int, every_s: float) -> Iterator[TreeWatch]:
    watch = TreeWatch(pid, every_s)
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()
