"""How much is left, in the fields that OpenAI's clients show."""

from __future__ import annotations

from collections.abc import Mapping

from voiceforge.services.limits import Rates


def rate_fields(rates: Rates) -> Mapping[str, str]:
    first = rates.tightest
    return {
        "x-ratelimit-limit-requests": str(first.most),
        "x-ratelimit-remaining-requests": str(first.remaining),
        "x-ratelimit-reset-requests": duration(first.reset_s),
    }


def duration(seconds: float) -> str:
    """As `1m0s`, `59.25s` or `17ms`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:.3g}s" if minutes else f"{rest:.4g}s"
