"""The host from inside: one thread that forks members, ends them, and tells how they ended.

Its line with each process that uses it says: fork, kill, ping. It never reads audio itself.
"""

from __future__ import annotations

import gc
import os
import select
import selectors
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from voiceforge.errors import VoiceForgeError
from voiceforge.infra.audiohost.error_json import error_to_json
from voiceforge.infra.audiohost.line import Garbled, Line, LineClosed
from voiceforge.infra.audiohost.member import Confinement, Craft, confine, serve


def run_audio_host(crafts: Mapping[str, Craft], confinement: Confinement | None = None) -> None:
    """Be the host. The command line ends with the descriptor of the socket to listen on; standard input is
    the lifeline: its end is the end of this process and of its members, so that none outlives a server that
    was killed."""
    # A service manager's SIGTERM reaches every process of the server. This one must stay until the requests
    # in progress have been answered.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    listener = socket.socket(fileno=int(sys.argv[-1]))
    AudioHost(listener, sys.stdin.fileno(), crafts, confinement or Confinement()).run()


@dataclass(frozen=True, slots=True)
class _Member:
    user: Line
    number: int


class AudioHost:
    """Args:
    listener: where those connect who want members.
    lifeline: a descriptor; its end is the end of this process and of all members.
    crafts: what members can do, by name; the first is prepared before anybody asks.
    """

    def __init__(
        self,
        listener: socket.socket,
        lifeline: int,
        crafts: Mapping[str, Craft],
        confinement: Confinement,
    ) -> None:
        self._listener = listener
        self._lifeline = lifeline
        self._crafts = crafts
        self._confinement = confinement
        self._users: set[Line] = set()
        self._members: dict[int, _Member] = {}
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Returns at the end of the lifeline."""
        bell, signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        with suppress(VoiceForgeError):  # whoever asks for a member hears of it
            next(iter(self._crafts.values())).prepare()
        self._listener.setblocking(True)
        for source in (self._lifeline, self._listener.fileno(), bell):
            self._selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fd == self._lifeline:
                    self._kill(None)
                    return
                if key.fd == bell:
                    os.read(bell, select.PIPE_BUF)
                    self._reap()
                elif key.fd == self._listener.fileno():
                    self._welcome()
                elif isinstance(key.data, Line) and key.data in self._users:
                    self._listen_to(key.data)

    def _welcome(self) -> None:
        peer, _ = self._listener.accept()
        user = Line(peer, takes_files=True)
        self._users.add(user)
        self._selector.register(user, selectors.EVENT_READ, user)
        self._tell(user, {"hello": True})

    def _listen_to(self, user: Line) -> None:
        try:
            order = user.receive()
        except (LineClosed, Garbled):
            self._selector.unregister(user)
            self._users.discard(user)
            user.close()
            self._kill(user)
            return
        match order.message:
            case {"fork": int(number), "craft": str(craft)} if order.descriptor is not None:
                self._fork(user, number, self._crafts[craft], socket.socket(fileno=order.descriptor))
            case {"kill": int(number)}:
                self._kill(user, number)
            case {"ping": _}:
                self._tell(user, {"pong": True})

    def _fork(self, user: Line, number: int, craft: Craft, peer: socket.socket) -> None:
        line = Line(peer, takes_files=True)
        host_pid = os.getpid()
        try:
            craft.prepare()
            gc.collect()
            gc.freeze()  # the collector would write to every object, and so copy every page
            pid = os.fork()
        except VoiceForgeError as error:
            with suppress(LineClosed):
                line.send({"error": error_to_json(error)})
            line.close()
            return
        except OSError:  # no process, no memory: the asker sees its line closed
            line.close()
            return
        if pid == 0:
            self._live_as_member(line, craft, host_pid)
        self._members[pid] = _Member(user, number)
        line.close()

    def _live_as_member(self, line: Line, craft: Craft, host_pid: int) -> None:
        """Never returns."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            self._listener.close()
            os.close(self._lifeline)
            for user in self._users:
                user.close()
            confine(self._confinement, host_pid)
            serve(line, craft, self._confinement.idle_s)
        finally:
            os._exit(0)

    def _kill(self, user: Line | None, number: int | None = None) -> None:
        """All members, or those of one user, or one of them. They are reaped here and nowhere else, so a
        pid in the table cannot be another process by now."""
        for pid, member in self._members.items():
            if user is None or (member.user is user and number in (None, member.number)):
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            member = self._members.pop(pid)
            if member.user in self._users:
                code = os.waitstatus_to_exitcode(status)
                self._tell(member.user, {"ended": member.number, "pid": pid, "code": code})

    def _tell(self, user: Line, message: Mapping[str, object]) -> None:
        # A user that does not read shall not stop the others; and it may be gone.
        with suppress(LineClosed, TimeoutError):
            user.send(message, patience_s=0.0)
