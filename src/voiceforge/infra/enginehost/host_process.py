"""One engine host as its parent sees it: started, watched, told to leave, killed."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from voiceforge.errors import EngineCrashed
from voiceforge.infra.enginehost.base import EngineSpec
from voiceforge.infra.enginehost.channel import Channel, ChannelClosed
from voiceforge.infra.enginehost.messages import Hello, LoadFailed, Pulse, Retire, Status

_BACKLOG = 128
_RETRY_AFTER_S = 2.0
_LONGEST_STEP_S = 2.0
"""Between two looks at a host that loads. Where more has gone by, this process was stopped too."""


class HostProcess:
    """The child is made at once and loads its model; `wait_ready` tells when it has.

    Its standard input is its lifeline: when that closes, however this process ends, the child ends too.

    Args:
        command: what to run; the number of the listening socket's descriptor comes after it, the spec on
            standard input.
        address: where its socket will be.
    """

    def __init__(self, command: Sequence[str], spec: EngineSpec, address: Path) -> None:
        self.spec = spec
        self.address = address
        self.status: Status | None = None
        self.hello: Hello | None = None
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(address))
            listener.listen(_BACKLOG)
            self._process = subprocess.Popen(  # noqa: S603
                [*command, str(listener.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=[listener.fileno()],
            )
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it ended at once: `wait_ready` tells
            self._process.stdin.write(pickle.dumps(spec))
            self._process.stdin.flush()
        self._observed = psutil.Process(self._process.pid)
        self._control: Channel | None = None
        self._asked_at: float | None = None
        self._looked_at = time.monotonic()
        self._computed_s = 0.0
        self._stalled_s = 0.0

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def wait_ready(self) -> None:
        """Blocks until the model is loaded.

        Raises:
            VoiceForgeError: what the child says of it; EngineCrashed where it said nothing and ended.
        """
        try:
            control = Channel.connect(self.address, f"keeper-{self.spec.entry.id}")
            greeting, _ = control.receive()
        except ChannelClosed as error:
            self.kill()
            raise EngineCrashed(
                "the process of the speech engine ended while it loaded the model",
                retry_after_s=_RETRY_AFTER_S,
            ) from error
        if isinstance(greeting, LoadFailed):
            control.close()
            self._process.wait()
            raise greeting.error
        assert isinstance(greeting, Hello)
        self.hello = greeting
        self._control = control
        threading.Thread(target=self._listen, args=(control,), daemon=True).start()

    def pulse(self) -> float:
        """Ask how it is, where no answer is awaited yet; returns for how long one has been, in seconds."""
        if self._control is None:
            return 0.0
        asked_at = self._asked_at  # another thread forgets it when the answer comes
        if asked_at is None:
            asked_at = self._asked_at = time.monotonic()
            self._control.send(Pulse())
        return time.monotonic() - asked_at

    def stalled_s(self) -> float:
        """For how long it has neither computed nor waited for a disk while it loads; to be asked again and
        again, by one thread. 0 once it is ready: `pulse` tells more."""
        if self._control is not None:
            return 0.0
        now = time.monotonic()
        step_s, self._looked_at = min(now - self._looked_at, _LONGEST_STEP_S), now
        try:
            times, status = self._observed.cpu_times(), self._observed.status()
        except psutil.Error:
            return 0.0  # it has ended, and `wait_ready` knows
        before_s, self._computed_s = self._computed_s, times.user + times.system
        gets_on = self._computed_s > before_s or status == psutil.STATUS_DISK_SLEEP
        self._stalled_s = 0.0 if gets_on else self._stalled_s + step_s
        return self._stalled_s

    def rss_bytes(self) -> int | None:
        """Resident memory; None once it has ended."""
        try:
            return int(self._observed.memory_info().rss)
        except psutil.Error:
            return None

    def retire(self, patience_s: float) -> None:
        """Let it finish what it has begun, then end. Blocks until it is gone."""
        if self._control is not None:
            self._control.send(Retire())
        try:
            self._process.wait(patience_s if self._control is not None else 0.0)
        except subprocess.TimeoutExpired:
            self.kill()
        self._tidy()

    def kill(self) -> None:
        """At once. Blocks until it is gone."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait()
        self._tidy()

    def _tidy(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        self.address.unlink(missing_ok=True)

    def _listen(self, control: Channel) -> None:
        for message, _ in control.messages():
            if isinstance(message, Status):
                self.status = message
                self._asked_at = None
