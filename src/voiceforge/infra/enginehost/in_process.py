"""Models in this process, each behind its own batcher: for the command line, and for small machines."""

from __future__ import annotations

from collections.abc import Callable

from voiceforge.speech.engines.base import Engine
from voiceforge.speech.engines.batcher import Batcher
from voiceforge.speech.engines.device import RunsOn
from voiceforge.speech.engines.tickets import BatcherLimits, BatchObserver, DecodeQueue


class InProcessHosts:
    """See `EngineHosts`.

    Args:
        load: makes the engine of a model; slow, may raise any of our errors.
        runs_on: what a model runs on that was loaded.
    """

    def __init__(
        self,
        load: Callable[[str], Engine],
        limits: BatcherLimits | None = None,
        *,
        runs_on: Callable[[str], RunsOn | None] = lambda _: None,
    ) -> None:
        self._load = load
        self._limits = limits or BatcherLimits()
        self._runs_on = runs_on

    def start(self, model_id: str, observer: BatchObserver) -> DecodeQueue:
        return Batcher(self._load(model_id), limits=self._limits, observer=observer)

    def renew(self, model_id: str) -> bool:
        return False

    def memory_bytes(self, model_id: str) -> int | None:
        return None

    def runs_on(self, model_id: str) -> RunsOn | None:
        return self._runs_on(model_id)

    def close(self) -> None:
        """Nothing is left: whoever started a queue closes it."""
