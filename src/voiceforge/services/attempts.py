"""Slows down who guesses passwords and tokens, or has letters sent to others.

Attempts are counted before they are made, so that many at once are no way around; those of an account and an
address are forgotten once one of them succeeds.
"""

from __future__ import annotations

import hashlib
import math

from voiceforge.errors import RateLimited
from voiceforge.infra.limiter.base import Limiter, Window
from voiceforge.services.households import household
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)

_WINDOW_S = 300
_OF_BOTH = 10
"""For an account from one address."""
_OF_ACCOUNT = 60
"""From everywhere: higher, so that others cannot easily keep its owner out."""
_OF_ADDRESS = 120
"""Behind which there may be many people."""
_LETTERS = 3
_LETTERS_S = 900


class Attempts:
    """Args:
    limiter: of one process, or shared by several.
    """

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    async def log_in(self, email: str, address: str | None) -> None:
        """
        Raises:
            RateLimited
        """
        await self._count(Window(f"l:a:{household(address)}", _OF_ADDRESS, _WINDOW_S))
        await self._count(Window(_of_both(email, address), _OF_BOTH, _WINDOW_S))
        await self._count(Window(f"l:e:{_name(email)}", _OF_ACCOUNT, _WINDOW_S))

    async def logged_in(self, email: str, address: str | None) -> None:
        """Those before were slips of whoever it is."""
        await self._limiter.forget(_of_both(email, address))

    async def ask(self, address: str | None) -> None:
        """Anything that needs no log-in.

        Raises:
            RateLimited
        """
        await self._count(Window(f"l:q:{household(address)}", _OF_ADDRESS, _WINDOW_S))

    async def may_send_letter(self, email: str) -> bool:
        """False: this address has had enough of them; who asks for one is not told."""
        return (await self._limiter.spend(Window(f"l:m:{_name(email)}", _LETTERS, _LETTERS_S))).passed

    async def _count(self, window: Window) -> None:
        spent = await self._limiter.spend(window)
        if not spent.passed:
            _log.info("attempts_slowed", by=window.key[2])
            raise RateLimited("too many attempts: wait a while", retry_after_s=math.ceil(spent.reset_s))


def _of_both(email: str, address: str | None) -> str:
    return f"l:b:{_name(email)}:{household(address)}"


def _name(email: str) -> str:
    """Short, and no address in whatever counts."""
    return hashlib.sha256(email.encode("utf-8", "replace")).hexdigest()[:32]
