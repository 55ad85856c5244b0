"""Tiers: how much whom may use. They stand in the configuration, and can change while the server runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from voiceforge.telemetry.logger import Logger

_GIB = 1024**3

_log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class Tier:
    """None: no limit. soft: what is beyond is told, hard: what is beyond is refused."""

    requests_per_minute: int | None = None
    audio_minutes_soft: float | None = None
    audio_minutes_hard: float | None = None
    concurrent_requests: int | None = None
    concurrent_streams: int | None = None
    queued_jobs: int | None = None
    storage_bytes: int | None = None
    upload_bytes: int | None = None


UNLIMITED = Tier()
STRICTEST = "free"
BUILT_IN: Mapping[str, Tier] = {
    STRICTEST: Tier(60, 240, 300, 4, 2, 20, _GIB, 100 * 1024**2),
    "pro": Tier(600, 15_000, None, 32, 16, 1000, 100 * _GIB, 2 * _GIB),
    "enterprise": Tier(6000, None, None, 256, 128, 20_000, None, None),
    "unlimited": UNLIMITED,
}


class Tiers:
    """Those of now. A name that means nothing (any more) is taken for the strictest, and told once."""

    def __init__(self, tiers: Mapping[str, Tier] = BUILT_IN) -> None:
        self._tiers = dict(tiers)
        self._strangers: set[str] = set()

    def of(self, name: str | None) -> Tier:
        """None: nobody in particular, who meets no limit."""
        if name is None:
            return UNLIMITED
        tier = self._tiers.get(name)
        if tier is not None:
            return tier
        if name not in self._strangers:
            self._strangers.add(name)
            _log.warning("unknown tier", tier=name, taken_for=STRICTEST)
        return self._tiers.get(STRICTEST, BUILT_IN[STRICTEST])

    def names(self) -> tuple[str, ...]:
        return tuple(self._tiers)

    def take(self, tiers: Mapping[str, Tier]) -> None:
        """From now on these."""
        self._tiers = dict(tiers)
        self._strangers.clear()
