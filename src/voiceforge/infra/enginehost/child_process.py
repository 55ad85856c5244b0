"""Models in child processes: `EngineHosts` over a keeper of such processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from voiceforge.infra.enginehost.base import EngineSpec
from voiceforge.infra.enginehost.channel import Channel
from voiceforge.infra.enginehost.hosted_queue import HostedQueue
from voiceforge.infra.enginehost.keeper import Hosts
from voiceforge.speech.engines.device import RunsOn
from voiceforge.speech.engines.tickets import BatchObserver, DecodeQueue


class HostObserver(Protocol):
    """For the metrics. Called from several threads."""

    def host_started(self, model: str, *, again: bool) -> None: ...


class ChildProcessHosts:
    """See `EngineHosts`.

    Args:
        spec: what to load for a model; asked anew whenever a host starts, raises what loading would.
        observer: for the metrics.
    """

    def __init__(
        self, hosts: Hosts, spec: Callable[[str], EngineSpec], observer: HostObserver | None = None
    ) -> None:
        self._hosts = hosts
        self._spec = spec
        self._observer = observer
        self._runs_on: dict[str, RunsOn] = {}

    def start(self, model_id: str, observer: BatchObserver) -> DecodeQueue:
        def connect() -> Channel:
            host = self._hosts.acquire(self._spec(model_id))
            if host.started and self._observer is not None:
                self._observer.host_started(model_id, again=host.again)
            return Channel.connect(host.address, f"engine-{model_id}")

        queue = HostedQueue(connect, observer=observer, on_close=lambda: self._hosts.release(model_id))
        self._runs_on[model_id] = queue.runs_on
        return queue

    def renew(self, model_id: str) -> bool:
        self._hosts.renew(self._spec(model_id))
        return True

    def memory_bytes(self, model_id: str) -> int | None:
        return self._hosts.memory_bytes(model_id)

    def runs_on(self, model_id: str) -> RunsOn | None:
        return self._runs_on.get(model_id)

    def close(self) -> None:
        self._hosts.close()
