"""One keeper for several processes: the first process of a server keeps the hosts, its workers ask it.

worker ─ RemoteHosts ─ one connection per question ─▶ KeeperServer ─▶ HostKeeper
"""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass
from pathlib import Path

from voiceforge.errors import ShuttingDown, VoiceForgeError
from voiceforge.infra.enginehost.base import EngineSpec
from voiceforge.infra.enginehost.channel import Channel, ChannelClosed
from voiceforge.infra.enginehost.keeper import Acquired, HostKeeper, OneUser

_BACKLOG = 128
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class _Acquire:
    user: str
    spec: EngineSpec


@dataclass(frozen=True, slots=True)
class _Release:
    user: str
    model_id: str


@dataclass(frozen=True, slots=True)
class _Renew:
    user: str
    spec: EngineSpec


@dataclass(frozen=True, slots=True)
class _MemoryOf:
    model_id: str


@dataclass(frozen=True, slots=True)
class _ReleaseAll:
    user: str


class KeeperServer:
    """Answers questions to a keeper on a Unix socket, each in a thread of its own.

    Args:
        address: where the socket will be, in a folder that only this user can enter.
    """

    def __init__(self, keeper: HostKeeper, address: Path) -> None:
        self._keeper = keeper
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(address))
        self._listener.listen(_BACKLOG)
        threading.Thread(target=self._accept, name="keeper-accept", daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._answer, args=(peer,), name="keeper-answer", daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        channel = Channel(peer, "keeper")
        try:
            question, _ = channel.receive()
        except ChannelClosed:
            channel.close()
            return
        answer: Acquired | int | VoiceForgeError | None
        try:
            answer = self._ask(question)
        except VoiceForgeError as error:
            answer = error
        channel.send(answer)
        channel.finish(_PATIENCE_S)

    def _ask(self, question: object) -> Acquired | int | None:
        match question:
            case _Acquire():
                return self._keeper.acquire(question.spec, question.user)
            case _Release():
                self._keeper.release(question.model_id, question.user)
            case _Renew():
                self._keeper.renew(question.spec, question.user)
            case _MemoryOf():
                return self._keeper.memory_bytes(question.model_id)
            case _ReleaseAll():
                OneUser(self._keeper, question.user).close()
        return None


class RemoteHosts:
    """A `Hosts` whose keeper is in another process. All of it raises ShuttingDown once that is gone."""

    def __init__(self, address: Path, user: str) -> None:
        self._address = address
        self._user = user

    def acquire(self, spec: EngineSpec) -> Acquired:
        answer = self._ask(_Acquire(self._user, spec))
        assert isinstance(answer, Acquired)
        return answer

    def release(self, model_id: str) -> None:
        self._ask(_Release(self._user, model_id))

    def renew(self, spec: EngineSpec) -> None:
        self._ask(_Renew(self._user, spec))

    def memory_bytes(self, model_id: str) -> int | None:
        answer = self._ask(_MemoryOf(model_id))
        return answer if isinstance(answer, int) else None

    def close(self) -> None:
        try:
            self._ask(_ReleaseAll(self._user))
        except ShuttingDown:
            return  # all hosts went with the keeper

    def _ask(self, question: object) -> object:
        try:
            channel = Channel.connect(self._address, "keeper")
            channel.send(question)
            answer, _ = channel.receive()
        except ChannelClosed as error:
            raise ShuttingDown("the server is shutting down", retry_after_s=5) from error
        channel.close()
        if isinstance(answer, VoiceForgeError):
            raise answer
        return answer
