"""The services of a process, wired once and handed to its surfaces."""

from __future__ import annotations

from dataclasses import dataclass

from voiceforge.services.engine_room import EngineRoom
from voiceforge.services.health import Health
from voiceforge.services.models import Models
from voiceforge.services.result_cache import ResultCache
from voiceforge.services.transcriptions import Transcriptions
from voiceforge.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Services:
    """results: None where nothing is kept."""

    transcriptions: Transcriptions
    models: Models
    health: Health
    engines: EngineRoom
    metrics: Metrics
    results: ResultCache | None = None
