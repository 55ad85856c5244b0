"""Wires the limits, and takes up the tiers of the configuration file when it is written anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from voiceforge.errors import ConfigurationError, DependencyMissing
from voiceforge.infra.limiter.base import Limiter
from voiceforge.infra.limiter.memory import MemoryLimiter
from voiceforge.main.settings import Settings
from voiceforge.main.settings_limits import TierSettings
from voiceforge.main.settings_loading import load_settings
from voiceforge.services.limits import Limits
from voiceforge.services.tiers import BUILT_IN, UNLIMITED, Tier, Tiers
from voiceforge.telemetry.logger import Logger
from voiceforge.telemetry.metrics import Metrics

_LOOK_EVERY_S = 2.0
_PREFIX = "voiceforge:limits"

_log = Logger(__name__)


def build_limits(settings: Settings, metrics: Metrics) -> Limits:
    """
    Raises:
        DependencyMissing: the Redis client is not installed.
    """
    return Limits(
        Tiers(tiers_of(settings.tiers)),
        _limiter(settings, metrics),
        metrics,
        per_address=settings.limits.requests_per_minute_per_address,
    )


def _limiter(settings: Settings, metrics: Metrics) -> Limiter:
    url = settings.limits.url
    if url is None:
        if settings.server.workers > 1:
            _log.warning("each process counts for itself: set limits.url", processes=settings.server.workers)
        return MemoryLimiter()
    try:
        from voiceforge.infra.limiter.guarded import GuardedLimiter
        from voiceforge.infra.limiter.redis import RedisLimiter
    except ImportError:
        raise DependencyMissing(
            "limits.url needs the Redis client. Run: pip install 'voiceforge[redis]'"
        ) from None
    shared = RedisLimiter(url.get_secret_value(), prefix=_PREFIX, timeout_s=settings.limits.timeout_s)
    return GuardedLimiter(shared, metrics)


def tiers_of(given: Mapping[str, TierSettings]) -> dict[str, Tier]:
    """Those built in, and over them what the settings say."""
    return dict(BUILT_IN) | {name: _over(BUILT_IN.get(name, UNLIMITED), wish) for name, wish in given.items()}


def _over(below: Tier, wish: TierSettings) -> Tier:
    given = wish.model_dump(exclude_none=True)
    return replace(below, **{name: None if value == "unlimited" else value for name, value in given.items()})


class TierFile:
    """The configuration file, for as long as the server runs."""

    """
    Args:
        on_taken: told their names once others are taken up.
    """

    def __init__(
        self,
        settings: Settings,
        tiers: Tiers,
        on_taken: Callable[[tuple[str, ...]], Awaitable[object]] | None = None,
    ) -> None:
        self._on_taken = on_taken
        self._file = settings.file
        self._given: Mapping[str, TierSettings] = settings.tiers
        self._tiers = tiers
        self._seen = self._stamp()

    async def keep(self) -> None:
        """Until cancelled: what is written into it holds soon after."""
        while self._file is not None:
            await asyncio.sleep(_LOOK_EVERY_S)
            if self.look() and self._on_taken is not None:
                await self._on_taken(self._tiers.names())

    def look(self) -> bool:
        """Take up its tiers, if it was written since; a file with mistakes changes nothing. Whether there are
        others now."""
        stamp = self._stamp()
        if stamp == self._seen or stamp is None:
            return False
        self._seen = stamp
        try:
            given = load_settings(self._file).tiers
        except ConfigurationError as error:
            _log.error("tiers not taken up", problems=list(error.problems))
            return False
        if given != self._given:
            self._given = given
            self._tiers.take(tiers_of(given))
            _log.info("tiers taken up", tiers=list(self._tiers.names()))
            return True
        return False

    def _stamp(self) -> tuple[int, int, int] | None:
        """None: it is not there, or not just now."""
        try:
            found = self._file.stat() if self._file is not None else None
        except OSError:
            return None
        return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)
