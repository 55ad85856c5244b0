"""Slows down who guesses passwords and tokens, or has letters sent to others.

Attempts are counted before they are made, so that many at once are no way around; those that succeed are
forgotten for that account and address.
"""

from __future__ import annotations

import hashlib
import math
import time

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import Storage
from limits.aio.strategies import MovingWindowRateLimiter

from voiceforge.errors import RateLimited
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)

_WINDOW_MIN = 5
_OF_BOTH = RateLimitItemPerMinute(10, _WINDOW_MIN)
"""For an account from one address."""
_OF_ACCOUNT = RateLimitItemPerMinute(60, _WINDOW_MIN)
"""From everywhere: higher, so that others cannot easily keep its owner out."""
_OF_ADDRESS = RateLimitItemPerMinute(120, _WINDOW_MIN)
"""Behind which there may be many people."""
_LETTERS = RateLimitItemPerMinute(3, 15)
_UNKNOWN = "unknown"


class Attempts:
    """Args:
    storage: of one process, or shared by several.
    """

    def __init__(self, storage: Storage) -> None:
        self._windows = MovingWindowRateLimiter(storage)

    async def log_in(self, email: str, address: str | None) -> None:
        """
        Raises:
            RateLimited
        """
        account, where = _name(email), address or _UNKNOWN
        await self._count(_OF_ADDRESS, "address", where)
        await self._count(_OF_BOTH, "both", account, where)
        await self._count(_OF_ACCOUNT, "account", account)

    async def logged_in(self, email: str, address: str | None) -> None:
        """Those before were slips of whoever it is."""
        await self._windows.clear(_OF_BOTH, "both", _name(email), address or _UNKNOWN)

    async def ask(self, address: str | None) -> None:
        """Anything that needs no log-in.

        Raises:
            RateLimited
        """
        await self._count(_OF_ADDRESS, "asks", address or _UNKNOWN)

    async def may_send_letter(self, email: str) -> bool:
        """False: this address has had enough of them; who asks for one is not told."""
        return await self._windows.hit(_LETTERS, "letter", _name(email))

    async def _count(self, limit: RateLimitItem, *names: str) -> None:
        if await self._windows.hit(limit, *names):
            return
        reset_at = (await self._windows.get_window_stats(limit, *names)).reset_time
        wait_s = min(max(math.ceil(reset_at - time.time()), 1), limit.get_expiry())
        _log.info("attempts_slowed", by=names[0])
        raise RateLimited("too many attempts: wait a while", retry_after_s=float(wait_s))


def _name(email: str) -> str:
    """Short, and no address in whatever stores it."""
    return hashlib.sha256(email.encode("utf-8", "replace")).hexdigest()[:32]
