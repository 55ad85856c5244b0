"""The process that runs one model for all who use it. Started by its keeper, never by hand.

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

import numpy as np

from voiceforge.errors import EngineFailed, VoiceForgeError
from voiceforge.infra.enginehost.base import EngineSpec
from voiceforge.infra.enginehost.channel import Channel
from voiceforge.infra.enginehost.messages import LoadFailed
from voiceforge.infra.enginehost.queue_server import QueueServer
from voiceforge.main.memory import return_large_blocks
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.base import DecodeOptions, Engine
from voiceforge.speech.engines.device import DeviceChoice, choose_device
from voiceforge.speech.engines.registry import load_engine

_FAREWELL_S = 5.0
_WARM_UP_S = 1


def main() -> None:
    # A terminal's Ctrl-C and a service manager's SIGTERM reach every process of the server. This one must
    # stay until the requests in progress have been answered; its parent ends it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return_large_blocks()
    spec: EngineSpec = pickle.load(sys.stdin.buffer)  # noqa: S301  # from our own parent
    listener = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()
    try:
        engine, device = _load(spec)
    except VoiceForgeError as error:
        _say(listener, LoadFailed(error))
        return
    QueueServer(engine, listener, limits=spec.limits, device=device).serve()


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # not through its buffer, whose lock would be in the way at exit
    os._exit(0)


def _load(spec: EngineSpec) -> tuple[Engine, str]:
    choices: list[DeviceChoice] = []

    def device() -> DeviceChoice:
        choices.append(choose_device(spec.device, spec.compute_type, spec.threads))
        return choices[-1]

    engine = load_engine(spec.entry, spec.path, spec.revision, cores=spec.cores, device=device)
    _warm_up(engine)
    names = [f"{choice.device}, {choice.compute_type}" for choice in choices]
    return engine, names[-1] if names else "cpu"


def _warm_up(engine: Engine) -> None:
    """The first decode of a runtime allocates and tunes: nobody shall wait for that."""
    noise = np.random.default_rng(0).normal(0.0, 0.01, _WARM_UP_S * SAMPLE_RATE_HZ).astype(np.float32)
    try:
        engine.decode([noise], DecodeOptions())
    except EngineFailed:
        raise
    except VoiceForgeError:
        pass  # about the options, not about the engine


def _say(listener: socket.socket, message: object) -> None:
    """To the parent, which is the first to connect."""
    peer, _ = listener.accept()
    channel = Channel(peer, "host")
    channel.send(message)
    channel.finish(_FAREWELL_S)


if __name__ == "__main__":
    main()
