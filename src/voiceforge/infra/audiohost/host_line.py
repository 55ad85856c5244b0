"""The host as its users see it: members on order, ended on demand, and how each ended."""

from __future__ import annotations

import itertools
import signal
import socket
import threading
import time
from pathlib import Path

from voiceforge.infra.audiohost.error_json import error_from_json
from voiceforge.infra.audiohost.line import Garbled, Line, LineClosed

_GREETING_S = 20.0
"""A host that is just starting greets when it has imported everything."""
_BIRTH_S = 10.0
_ANSWER_S = 5.0
_OBITUARY_S = 1.0


class HostGone(Exception):
    """The host has ended, or does not answer."""


class NoMember(Exception):
    """The host is well but could not make another process."""


class Member:
    """A process that waits for orders. `orders`: how many it has carried out."""

    def __init__(self, line: Line, host: HostLine, number: int) -> None:
        self.line = line
        self.host = host
        self.number = number
        self.orders = 0

    def is_waiting(self) -> bool:
        """Whether it is alive and silent, as one without an order should be."""
        return not self.line.ready()

    def dismiss(self) -> None:
        """It ends when it next reads or writes."""
        self.line.close()

    def kill(self) -> None:
        self.host.kill(self.number)
        self.line.close()


class HostLine:
    """This process's line with the host. Thread-safe.

    Raises:
        HostGone: there is none at that address, nor will there be.
    """

    def __init__(self, address: Path) -> None:
        peer = socket.socket(socket.AF_UNIX)
        self._line = Line(peer)
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._ended: dict[int, int] = {}
        self._pongs = 0
        try:
            peer.connect(str(address))
        except OSError as error:
            peer.close()
            raise HostGone from error

    def wait_greeting(self) -> None:
        """Blocks until the host is up. The first call.

        Raises:
            HostGone: it does not come up, or this line was shut meanwhile.
        """
        try:
            self._line.receive(_GREETING_S)
        except (LineClosed, Garbled, TimeoutError) as error:
            self._line.close()
            raise HostGone from error

    def shut(self) -> None:
        """Nobody waits for the host any more, and all members of this line end. From any thread."""
        self._line.shut()

    def fork(self, craft: str) -> Member:
        """A new member; blocks for the milliseconds that it takes.

        Raises:
            HostGone, NoMember
            DependencyMissing: the craft needs a package that is not installed.
        """
        here, there = socket.socketpair()
        with there:
            number = next(self._numbers)
            try:
                with self._lock:
                    self._read()
                    self._line.send(
                        {"fork": number, "craft": craft}, descriptor=there.fileno(), patience_s=_ANSWER_S
                    )
            except (LineClosed, Garbled, TimeoutError) as error:
                here.close()
                raise HostGone from error
        line = Line(here)
        try:
            greeting = line.receive(_BIRTH_S).message
        except (LineClosed, Garbled, TimeoutError) as error:
            line.close()
            raise (NoMember if self._answers() else HostGone) from error
        if "error" in greeting:
            line.close()
            raise error_from_json(greeting["error"])
        return Member(line, self, number)

    def kill(self, number: int) -> None:
        """A member that has ended, or whose host has, is left alone."""
        try:
            with self._lock:
                self._line.send({"kill": number}, patience_s=_ANSWER_S)
        except (LineClosed, TimeoutError):
            return

    def how_ended(self, number: int) -> str:
        """For the log."""
        deadline = time.monotonic() + _OBITUARY_S
        try:
            with self._lock:
                while number not in self._ended:
                    self._read(max(0.0, deadline - time.monotonic()))
                    if time.monotonic() > deadline:
                        return "unknown"
                code = self._ended.pop(number)
        except (LineClosed, Garbled, TimeoutError):
            return "its host ended"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def close(self) -> None:
        self.shut()
        with self._lock:
            self._line.close()

    def _answers(self) -> bool:
        deadline = time.monotonic() + _ANSWER_S
        try:
            with self._lock:
                before = self._pongs
                self._line.send({"ping": True}, patience_s=_ANSWER_S)
                while self._pongs == before and time.monotonic() < deadline:
                    self._read(max(0.0, deadline - time.monotonic()))
                return self._pongs > before
        except (LineClosed, Garbled, TimeoutError):
            return False

    def _read(self, patience_s: float = 0.0) -> None:
        """Take in what the host has told, waiting for something at first. With the lock held."""
        while self._line.ready(patience_s):
            patience_s = 0.0
            told = self._line.receive(_ANSWER_S).message
            if "pong" in told:
                self._pongs += 1
            elif "ended" in told and told.get("code"):  # those who left by themselves leave no question
                self._ended[told["ended"]] = told["code"]
