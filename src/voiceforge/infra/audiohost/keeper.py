"""Keeps one audio host running for all processes of a server: started, watched, started again.

Its address stays the same: the listening socket is held here, so those who come while a host is being
replaced wait for the next one.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from voiceforge.infra.audiohost.line import Garbled, Line, LineClosed
from voiceforge.telemetry.logger import Logger

_BACKLOG = 128
_PING_EVERY_S = 1.0
_FAREWELL_S = 2.0
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.1, 10.0
"""Before the next one, where one did not live: doubled each time, so that a broken one burns no processor."""
_SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""A process that forks must have no other threads, and no member needs them."""

_log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class KeepingRules:
    """start_s: a host that has not greeted by then is given up; silent_s: one that does not answer."""

    start_s: float = 60.0
    silent_s: float = 5.0


class AudioHostKeeper:
    """Owns the host, which is started at once, in the background. Thread-safe.

    Args:
        command: runs a host; the number of the listening socket's descriptor comes after it, and its
            standard input is its lifeline.
    """

    def __init__(self, command: Sequence[str], rules: KeepingRules | None = None) -> None:
        self._command = tuple(command)
        self._rules = rules or KeepingRules()
        # Not beside the data: the path of a socket is at most a hundred bytes or so.
        self._folder = tempfile.TemporaryDirectory(prefix="voiceforge-")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.address))
        self._listener.listen(_BACKLOG)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._line: Line | None = None
        self._process = self._start()
        self._watcher = threading.Thread(target=self._watch, name="audio-host-watch", daemon=True)
        self._watcher.start()

    @property
    def address(self) -> Path:
        """Of the socket that answers whoever wants members, now or as soon as a host is up."""
        return Path(self._folder.name) / "audio"

    @property
    def pid(self) -> int:
        """Of the host as it is now; its children are the members."""
        return self._process.pid

    def close(self) -> None:
        """End the host and all members. Idempotent."""
        with self._lock:
            self._closed.set()
            if self._line is not None:
                self._line.shut()
        self._watcher.join()
        self._end()
        self._listener.close()
        self._folder.cleanup()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603
            [*self._command, str(self._listener.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[self._listener.fileno()],
            env={**os.environ, **_SINGLE_THREADED},
            # A terminal's Ctrl-C is not for it; and it can be ended together with its members. Not a session
            # of its own: Linux shares the processor among sessions before it looks at priorities.
            process_group=0,
        )

    def _watch(self) -> None:
        delay_s = _FIRST_DELAY_S
        while True:
            if self._follow():
                delay_s = _FIRST_DELAY_S
            if self._closed.is_set():
                return
            pid = self.pid
            code = self._end()
            _log.error("audio host ended, another is started", pid=pid, exit_code=code)
            if self._closed.wait(delay_s):
                return
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
            with self._lock:
                if self._closed.is_set():
                    return
                self._process = self._start()

    def _follow(self) -> bool:
        """Returns when the host is dead, or as good as dead, or not wanted; whether it ever lived."""
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(str(self.address))
        line = Line(peer)
        with self._lock:
            if self._closed.is_set():
                line.close()
                return False
            self._line = line
        greeted = False
        try:
            line.receive(self._rules.start_s)
            greeted = True
            while not line.ready(_PING_EVERY_S):
                line.send({"ping": True}, patience_s=self._rules.silent_s)
                line.receive(self._rules.silent_s)
            line.receive(self._rules.silent_s)  # nothing is told unasked: this is the end of the line
        except (LineClosed, Garbled, TimeoutError):
            pass
        with self._lock:
            self._line = None
            line.close()
        return greeted

    def _end(self) -> int:
        """Give it a moment to leave by itself, where it still can; the exit code."""
        process = self._process
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            if self._closed.is_set():
                return process.wait(_FAREWELL_S)
        except subprocess.TimeoutExpired:
            pass
        # Not yet reaped, or a member of its is left: the number of the group is still its own.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait()
