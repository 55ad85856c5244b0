"""Whose limit holds, and what changes while the server runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from voiceforge.errors import RateLimited
from voiceforge.infra.limiter.memory import MemoryLimiter
from voiceforge.main.limits import TierFile, tiers_of
from voiceforge.main.settings_loading import load_settings
from voiceforge.services.access import OWNER, Caller, Role, scopes_of
from voiceforge.services.limits import Limits
from voiceforge.services.tiers import BUILT_IN, Tier, Tiers
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.log_lines import log_lines

SOMEBODY = Caller("acme", Role.MEMBER, scopes_of(Role.MEMBER, "acme"), key_id="key-1", tier="small")


@pytest.fixture
def tiers() -> Tiers:
    return Tiers({"small": Tier(requests_per_minute=3), "tiny": Tier(requests_per_minute=1), "open": Tier()})


@pytest.fixture
def limits(tiers: Tiers) -> Limits:
    return Limits(tiers, MemoryLimiter(), Metrics("test"))


async def passes(limits: Limits, caller: Caller, address: str | None = None) -> bool:
    rates = await limits.spend(caller, address)
    return rates is None or rates.refused is None


async def test_keys_of_a_tenant_share_its_limit(limits: Limits) -> None:
    other = replace(SOMEBODY, key_id="key-2")
    assert [await passes(limits, who) for who in (SOMEBODY, other, other, SOMEBODY)] == [True] * 3 + [False]
    assert await passes(limits, replace(SOMEBODY, tenant="globex"))


async def test_a_key_with_a_tier_of_its_own_takes_no_more_of_its_tenant_s(limits: Limits) -> None:
    bounded = replace(SOMEBODY, key_tier="tiny")
    rates = await limits.spend(bounded, None)
    assert rates is not None
    assert [(rate.by, rate.remaining) for rate in rates.all] == [("key", 0), ("tenant", 2)]
    assert rates.tightest.by == "key"
    for _ in range(5):
        rates = await limits.spend(bounded, None)
        assert rates is not None
        assert rates.refused is not None
        assert rates.refused.by == "key"
    other = replace(SOMEBODY, key_id="key-2")
    assert [await passes(limits, other) for _ in range(3)] == [True, True, False]


async def test_who_owns_the_machine_meets_no_limit_and_the_default_tenant_s_tier_has_none(
    limits: Limits,
) -> None:
    assert await limits.spend(OWNER, "192.0.2.1") is None
    assert BUILT_IN["unlimited"] == Tier()


async def test_a_tier_that_is_not_known_is_the_strictest_and_told_once(limits: Limits) -> None:
    limits.tiers.take({"free": Tier(requests_per_minute=1)})
    with log_lines() as lines:
        assert await passes(limits, SOMEBODY)
        assert not await passes(limits, SOMEBODY)
    assert [line["tier"] for line in lines if line["event"] == "unknown tier"] == ["small"]


async def test_no_more_is_in_progress_than_a_tier_has_places(limits: Limits, tiers: Tiers) -> None:
    tiers.take(
        {"small": Tier(concurrent_requests=2, concurrent_streams=1), "tiny": Tier(concurrent_requests=1)}
    )
    bounded = replace(SOMEBODY, key_tier="tiny")
    async with limits.at_once(bounded, "requests"):
        with pytest.raises(RateLimited, match="this key"):
            async with limits.at_once(bounded, "requests"):
                pass
        async with limits.at_once(SOMEBODY, "requests"), limits.at_once(SOMEBODY, "streams"):
            with pytest.raises(RateLimited, match="2 requests"):
                async with limits.at_once(SOMEBODY, "requests"):
                    pass
            async with limits.at_once(OWNER, "requests"):
                pass
    async with limits.at_once(SOMEBODY, "requests"), limits.at_once(SOMEBODY, "requests"):
        pass


def write(file: Path, text: str) -> None:
    """As editors do it."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


def test_tiers_of_the_file_hold_soon_after_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "voiceforge.toml"
    write(file, "[tiers.pro]\nrequests_per_minute = 7\n")
    settings = load_settings(file, environ={})
    tiers = Tiers(tiers_of(settings.tiers))
    assert tiers.of("pro").requests_per_minute == 7
    assert tiers.of("pro").queued_jobs == BUILT_IN["pro"].queued_jobs
    watch = TierFile(settings, tiers)

    write(file, '[tiers.pro]\nrequests_per_minute = "unlimited"\n[tiers.gold]\nstorage_bytes = "1GiB"\n')
    watch.look()
    assert tiers.of("pro").requests_per_minute is None
    assert tiers.of("gold") == Tier(storage_bytes=2**30)

    kept: dict[str, Any] = {}
    with log_lines() as lines:
        write(file, "[tiers.pro]\nrequests_per_minute = -1\n")
        watch.look()
        watch.look()
        kept["lines"] = [line for line in lines if line["event"] == "tiers not taken up"]
    assert len(kept["lines"]) == 1
    assert tiers.of("pro").requests_per_minute is None

    file.unlink()
    watch.look()
    assert tiers.of("gold") == Tier(storage_bytes=2**30)
