"""Runs programs and watches what they cost: CPU, wall, memory; the process and its children together."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

MB = 1e6
_SAMPLE_S = 0.05


@dataclass(frozen=True, slots=True)
class Cost:
    """wall_s, cpu_s: of the whole process, its start included. peak_rss_mb: highest sample of the tree,
    and never below the kernel's own high-water mark of the main process."""

    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    output: str


class Failed(Exception):
    """The program measured did not do its work."""


def voiceforge() -> list[str]:
    """The command beside this interpreter."""
    return [str(Path(sys.executable).parent / "voiceforge")]


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    """This environment without settings of VoiceForge, so that defaults are measured; except that no earlier
    result answers for the work that is to be measured."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("VOICEFORGE_")}
    return clean | {"VOICEFORGE_DATA_DIR": str(data_dir), "VOICEFORGE_CACHE__ENABLED": "false"} | more


def run(command: Sequence[str], env: Mapping[str, str]) -> Cost:
    """Run to the end.

    Raises:
        Failed: it exits with another code than 0.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    with subprocess.Popen(
        command, env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        watch = _PeakWatch(process.pid)
        watch.start()
        output, complaint = process.communicate()
        wall_s = time.perf_counter() - started
        watch.stop()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode != 0:
        raise Failed(f"{command[0]} exited with {process.returncode}: {complaint.decode()[-500:]}")
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall_s, cpu_s, watch.peak_bytes / MB, output.decode())


def run_json(command: Sequence[str], env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a part of a benchmark in a process of its own; the last line it prints is its answer."""
    cost = run(command, os.environ if env is None else env)
    answer: dict[str, Any] = json.loads(cost.output.strip().splitlines()[-1])
    return answer


def own_peak_rss_mb() -> float:
    """The most memory this process ever held since it was executed.

    Not `ru_maxrss` where that can be helped: a child inherits it from the parent it was forked from.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / MB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak if sys.platform == "darwin" else peak * 1024) / MB


def tree_rss_mb(pid: int) -> float:
    return _tree_rss(psutil.Process(pid)) / MB


@dataclass(frozen=True, slots=True)
class Server:
    """A started server that is ready. ready_s: wall from its start to the first ready answer;
    listening_s: to the first answer at all."""

    url: str
    pid: int
    listening_s: float
    ready_s: float


@contextmanager
def serving(env: Mapping[str, str], *arguments: str, timeout_s: float = 120.0) -> Iterator[Server]:
    """`voiceforge serve` on a free port of 127.0.0.1 while the block runs.

    Raises:
        Failed: it ends, or is not ready within `timeout_s`.
    """
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    started = time.perf_counter()
    process = subprocess.Popen(
        [*voiceforge(), "serve", "--port", str(port), *arguments],
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        listening_s = None
        while True:
            if process.poll() is not None:
                raise Failed(f"the server ended with {process.returncode}")
            status = _status(f"{url}/health/ready")
            now_s = time.perf_counter() - started
            if status is not None and listening_s is None:
                listening_s = now_s
            if status == 200 and listening_s is not None:
                break
            if now_s > timeout_s:
                raise Failed(f"the server is not ready after {timeout_s:g} s (last answer: {status})")
            time.sleep(0.01)
        yield Server(url, process.pid, listening_s, now_s)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _status(url: str) -> int | None:
    """The HTTP status; None: nobody answers yet."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as refused:
        return refused.code
    except OSError:
        return None


class _PeakWatch(threading.Thread):
    """Samples the memory of a process tree until it is gone."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self.peak_bytes = 0

    def run(self) -> None:
        while not self._over.wait(_SAMPLE_S):
            self.peak_bytes = max(self.peak_bytes, _tree_rss(self._process), self._high_water())

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _high_water(self) -> int:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return 0


def _tree_rss(root: psutil.Process) -> int:
    total = 0
    with contextlib.suppress(psutil.Error):
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
    return total
