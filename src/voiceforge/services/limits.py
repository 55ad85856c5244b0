"""How often whom may ask: by address, by key and by tenant, in that order, as their tiers say."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from voiceforge.errors import RateLimited
from voiceforge.infra.limiter.base import Limiter, Spent, Window
from voiceforge.services.access import Caller
from voiceforge.services.tiers import Tiers
from voiceforge.telemetry.metrics import Metrics

By = Literal["address", "key", "tenant"]

WINDOW_S = 60
_V6_PREFIX = 64
"""One household has so many addresses of version 6."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How one window stands. reset_s: until one more is free."""

    by: By
    most: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Rates:
    """How all windows of a request stand. refused: the one that let it not pass; None: it passes."""

    all: Sequence[Rate]
    refused: Rate | None

    @property
    def tightest(self) -> Rate:
        """The one that its caller should look at."""
        return self.refused or min(self.all, key=lambda rate: rate.remaining)

    def refusal(self) -> RateLimited:
        """What to tell who was refused."""
        assert self.refused is not None
        return RateLimited(
            f"this {self.refused.by} may make {self.refused.most} requests a minute",
            retry_after_s=self.refused.reset_s,
        )


class Limits:
    """
    Args:
        per_address: requests of one address in a minute, whoever makes them; None: any number.
    """

    def __init__(
        self, tiers: Tiers, limiter: Limiter, metrics: Metrics, *, per_address: int | None = None
    ) -> None:
        self.tiers = tiers
        self._limiter = limiter
        self._metrics = metrics
        self._per_address = per_address

    @property
    def limiter(self) -> Limiter:
        """Counts whatever else is to be counted by many together."""
        return self._limiter

    async def spend(self, caller: Caller, address: str | None) -> Rates | None:
        """Count a request, unless it is refused; None: nothing limits it.

        The narrowest window is asked first: a key that asks too often takes nothing of its tenant's.
        """
        windows = self._windows(caller, address)
        if not windows:
            return None
        rates: list[Rate] = []
        for by, window in windows:
            spent = await self._limiter.spend(window)
            rates.append(_rate(by, window, spent))
            if not spent.passed:
                self._metrics.rate_limited(by)
                return Rates(rates, rates[-1])
        return Rates(rates, None)

    def _windows(self, caller: Caller, address: str | None) -> list[tuple[By, Window]]:
        windows: list[tuple[By, Window]] = []
        if self._per_address is not None and address is not None:
            windows.append(("address", Window(f"a:{_household(address)}", self._per_address, WINDOW_S)))
        if caller.key_tier is not None and caller.key_id is not None:
            most = self.tiers.of(caller.key_tier).requests_per_minute
            if most is not None:
                windows.append(("key", Window(f"k:{caller.key_id}", most, WINDOW_S)))
        most = self.tiers.of(caller.tier).requests_per_minute
        if most is not None:
            windows.append(("tenant", Window(f"t:{caller.tenant}", most, WINDOW_S)))
        return windows

    async def close(self) -> None:
        await self._limiter.close()


def _rate(by: By, window: Window, spent: Spent) -> Rate:
    return Rate(by, window.most, spent.remaining, spent.reset_s)


def _household(address: str) -> str:
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network(f"{address.partition('%')[0]}/{_V6_PREFIX}", strict=False))
    except ValueError:
        return address
