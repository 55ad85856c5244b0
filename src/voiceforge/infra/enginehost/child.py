"""The life of an engine host, seen from inside: spec in, model loaded, served, gone.

Standard input brings the spec and then stays open: its end is the end of this process, so that no host
outlives a server that was killed.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable

from voiceforge.errors import VoiceForgeError
from voiceforge.infra.enginehost.base import EngineSpec
from voiceforge.infra.enginehost.channel import Channel
from voiceforge.infra.enginehost.messages import LoadFailed
from voiceforge.infra.enginehost.queue_server import QueueServer
from voiceforge.speech.engines.base import Engine
from voiceforge.speech.engines.device import RunsOn

_FAREWELL_S = 5.0
NICENESS = 10
"""How much lower the priority of a host is. It takes all cores for as long as there is work, and those who
answer HTTP need one for a millisecond at once."""

Load = Callable[[EngineSpec], tuple[Engine, RunsOn]]
"""Makes the engine, and tells what it runs on; slow, may raise any of our errors."""


def run_host(load: Load) -> None:
    """Returns when the host has been told to retire. Its command line ends with the descriptor of the
    socket that listens for it."""
    os.nice(NICENESS)  # before the runtime makes its threads, which have each their own
    # A terminal's Ctrl-C and a service manager's SIGTERM reach every process of the server. This one must
    # stay until the requests in progress have been answered; its parent ends it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    spec: EngineSpec = pickle.load(sys.stdin.buffer)  # noqa: S301  # from our own parent
    listener = socket.socket(fileno=int(sys.argv[-1]))
    threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()
    try:
        engine, runs_on = load(spec)
    except VoiceForgeError as error:
        _say(listener, LoadFailed(error))
        return
    QueueServer(engine, listener, limits=spec.limits, runs_on=runs_on).serve()


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through its buffer, whose lock would be in the way at exit
    os._exit(0)


def _say(listener: socket.socket, message: object) -> None:
    """To the parent, which is the first to connect."""
    peer, _ = listener.accept()
    channel = Channel(peer, "host")
    channel.send(message)
    channel.finish(_FAREWELL_S)
