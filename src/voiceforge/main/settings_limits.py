"""Settings of how much whom may use."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, SecretStr, field_validator

from voiceforge.main.settings_values import Section, json_table, redis_address

_HIGHEST_PRICE = Decimal(1_000_000)
_TIER_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")

Unlimited = Literal["unlimited"]
Count = Annotated[int, Field(ge=0, le=10_000_000)]
Minutes = Annotated[float, Field(ge=0, le=1e9)]


class TierSettings(Section):
    """How much a tier may use. Left out: as the built-in tier of that name has it, for others no limit."""

    requests_per_minute: Count | Unlimited | None = None
    audio_minutes_soft: Minutes | Unlimited | None = None
    audio_minutes_hard: Minutes | Unlimited | None = None
    concurrent_requests: Count | Unlimited | None = None
    concurrent_streams: Count | Unlimited | None = None
    queued_jobs: Count | Unlimited | None = None
    storage_bytes: ByteSize | Unlimited | None = None
    upload_bytes: ByteSize | Unlimited | None = None


def _named(tiers: dict[str, TierSettings]) -> dict[str, TierSettings]:
    for name in tiers:
        if not _TIER_NAME.fullmatch(name):
            raise ValueError(f"a tier's name is made of a-z, 0-9, - and _, at most 40; {name!r} is not")
    return tiers


TierTable = Annotated[dict[str, TierSettings], BeforeValidator(json_table), AfterValidator(_named)]


class LimitSettings(Section):
    """Where what was used is counted, and what holds for everybody."""

    url: SecretStr | None = Field(
        default=None,
        examples=["redis://:password@redis.example:6379/1"],
        description="Redis server through which all processes count together; unset: each process counts for "
        "itself.",
    )
    timeout_s: float = Field(
        default=0.5,
        gt=0,
        le=10,
        description="A Redis that says nothing for so long is out of reach: then each process counts for "
        "itself.",
    )
    requests_per_minute_per_address: int | None = Field(
        default=None,
        ge=1,
        examples=[600],
        description="Requests of one address, whoever makes them; of IPv6 a network of 64 bits counts as "
        "one. Unset: any number.",
    )

    @field_validator("url")
    @classmethod
    def _is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else redis_address(value)


def _prices(given: dict[str, Decimal]) -> dict[str, Decimal]:
    for model, price in given.items():
        if not (price.is_finite() and 0 <= price <= _HIGHEST_PRICE):
            raise ValueError(f"the price of {model!r} should be between 0 and {_HIGHEST_PRICE}")
    return given


PriceTable = Annotated[dict[str, Decimal], BeforeValidator(json_table), AfterValidator(_prices)]


class UsageSettings(Section):
    """What was transcribed for whom, and what that costs."""

    price_per_minute: PriceTable = Field(
        default={},
        description="Price of a minute of audio by model; `*` for all others. Only told, never charged.",
    )
    currency: str = Field(
        default="", max_length=12, description="What stands behind prices, such as `EUR`; any text."
    )
    rows_s: float = Field(
        default=90 * 86_400.0,
        ge=86_400,
        description="How long single bookings are kept; what they add up to by the day stays.",
    )
