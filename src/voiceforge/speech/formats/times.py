"""The one place where seconds become whole milliseconds: rounded, never cut off."""

from __future__ import annotations

import math


def to_s(seconds: float) -> float:
    """Seconds as a document carries them: three decimals."""
    return round(float(seconds), 3)


def to_ms(seconds: float) -> int:
    """Whole milliseconds; agrees with `to_s` on every value."""
    return round(to_s(seconds) * 1000)


def clock(ms: int, decimal_mark: str) -> str:
    """hh:mm:ss.mmm with the given mark; hours grow as needed."""
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{decimal_mark}{ms:03d}"


def finite(value: float | None, digits: int) -> float | None:
    """Rounded for a document; None for what JSON cannot write (NaN, infinity)."""
    return None if value is None or not math.isfinite(value) else round(value, digits)
