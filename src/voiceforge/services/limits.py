"""How often whom may ask, and for how much at once: by address, key and tenant, as their tiers say."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal

from voiceforge.errors import RateLimited, UploadTooLarge
from voiceforge.infra.limiter.base import Limiter, Place, Spent, Window
from voiceforge.services.access import Caller
from voiceforge.services.tiers import Tier, Tiers
from voiceforge.telemetry.metrics import Metrics

By = Literal["address", "key", "tenant"]
What = Literal["requests", "streams"]
"""What is in progress at once."""

WINDOW_S = 60
_FULL_RETRY_S = 1.0
"""Nobody knows when one of the others is done."""
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
        self._here = f"{os.getpid():x}{secrets.token_hex(6)}"
        self._numbers = itertools.count()

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

    @contextlib.asynccontextmanager
    async def at_once(self, caller: Caller, what: What) -> AsyncIterator[None]:
        """While the block runs, one more is in progress.

        Raises:
            RateLimited: there are as many as may be.
        """
        taken: list[Place] = []
        try:
            for by, name, tier in self._tiers_of(caller):
                most = tier.concurrent_streams if what == "streams" else tier.concurrent_requests
                if most is None:
                    continue
                place = Place(f"{what}:{name}", most, f"{self._here}{next(self._numbers):x}")
                if not await self._limiter.enter(place):
                    self._metrics.rate_limited(by)
                    raise RateLimited(
                        f"this {by} may have {most} {what} in progress at once", retry_after_s=_FULL_RETRY_S
                    )
                taken.append(place)
            yield
        finally:
            for place in taken:
                await self._limiter.leave(place)

    def most_upload_bytes(self, caller: Caller) -> int | None:
        """None: as many as the server takes."""
        sizes = [tier.upload_bytes for _, _, tier in self._tiers_of(caller) if tier.upload_bytes is not None]
        return min(sizes, default=None)

    def check_upload(self, caller: Caller, size_bytes: int) -> None:
        """
        Raises:
            UploadTooLarge: one so large is more than the caller may send.
        """
        most = self.most_upload_bytes(caller)
        if most is not None and size_bytes > most:
            raise UploadTooLarge(f"you may upload {most} bytes at most")

    def _tiers_of(self, caller: Caller) -> list[tuple[By, str, Tier]]:
        """The narrowest first."""
        found: list[tuple[By, str, Tier]] = []
        if caller.key_tier is not None and caller.key_id is not None:
            found.append(("key", f"k:{caller.key_id}", self.tiers.of(caller.key_tier)))
        if caller.tier is not None:
            found.append(("tenant", f"t:{caller.tenant}", self.tiers.of(caller.tier)))
        return found

    def _windows(self, caller: Caller, address: str | None) -> list[tuple[By, Window]]:
        windows: list[tuple[By, Window]] = []
        if self._per_address is not None and address is not None:
            windows.append(("address", Window(f"a:{_household(address)}", self._per_address, WINDOW_S)))
        for by, name, tier in self._tiers_of(caller):
            if tier.requests_per_minute is not None:
                windows.append((by, Window(name, tier.requests_per_minute, WINDOW_S)))
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
