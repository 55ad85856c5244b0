"""When an event that was not taken is sent again."""

from __future__ import annotations

_PAUSES_S = (5.0, 30.0, 120.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 21_600.0, 32_400.0)
_SHORTEST_SHARE = 0.8
"""A pause is between this share of what stands above and all of it: what failed together comes back apart.
Each is longer than the one before all the same, and all of them together are under 24 hours."""
_LONGEST_WISH_S = 900.0
"""What a receiver may ask for; where all early pauses are that long, they are still under 24 hours."""

MOST_ATTEMPTS = len(_PAUSES_S) + 1


def pause_s(attempts: int, chance: float, retry_after_s: float | None = None) -> float | None:
    """Seconds until the next attempt after so many; None: there is none.

    Args:
        attempts: at least 1.
        chance: in [0, 1).
        retry_after_s: what the receiver asks for.
    """
    if attempts >= MOST_ATTEMPTS:
        return None
    whole_s = _PAUSES_S[attempts - 1]
    spread_s = whole_s * (_SHORTEST_SHARE + (1.0 - _SHORTEST_SHARE) * chance)
    return max(spread_s, min(retry_after_s or 0.0, _LONGEST_WISH_S))
