"""Passwords: which are good enough, and hashing them beside the event loop, a few at a time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Protocol, TypeVar

from voiceforge.errors import Overloaded, WeakPassword

Result = TypeVar("Result")

SHORTEST = 12
LONGEST = 1024
RULE = (
    f"a password has at least {SHORTEST} characters, is none of the most common ones, says neither the name "
    "of the service nor your address, and repeats itself less than it varies"
)
_LEAST_VARIED = 5
"""Different characters."""
_MOST_WAITING = 32
_RETRY_AFTER_S = 2.0

# Of the lists of leaked passwords, those at the top that are long enough; compared without digits at the end
# and in lower case.
_WORST = frozenset(
    {
        "abcdefghijkl",
        "adminadminadmin",
        "administrator",
        "changemechangeme",
        "changemenow!",
        "correcthorsebatterystaple",
        "iloveyouiloveyou",
        "letmeinletmein",
        "passwordpassword",
        "passw0rdpassw0rd",
        "qazwsxedcrfv",
        "1qaz2wsx3edc",
        "1q2w3e4r5t6y",
        "qwertyqwerty",
        "qwertyuiop[]",
        "qwertyuiopas",
        "qwertyuiopasdfghjkl",
        "qwertyasdfgh",
        "superman",
        "unknownunknown",
        "welcomewelcome",
        "zxcvbnmasdfghjkl",
    }
)
_STEMS = frozenset(
    {"", "admin", "changeme", "iloveyou", "letmein", "password", "passw0rd", "p@ssword", "p@ssw0rd",
     "qwerty", "qwertyuiop", "voiceforge", "welcome", "abc", "test", "superman", "princess", "football"}
)  # fmt: skip
_DECORATION = re.compile(r"[\d\W_]+$")


class Hashes(Protocol):
    """See `infra.credentials.password_hashes`; all of it blocks."""

    def hashed(self, password: str) -> str: ...
    def matches(self, password: str, stored: str | None) -> bool: ...
    def is_old(self, stored: str) -> bool: ...


def check_password(password: str, *about: str | None) -> None:
    """
    Args:
        about: names and addresses of whoever wants it.

    Raises:
        WeakPassword: says the rule.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        why = "is too long" if len(password) > LONGEST else "is too short"
        raise WeakPassword(f"the password {why}: {RULE}", field="password")
    if not _is_text(password):
        raise WeakPassword(f"the password has characters that are none: {RULE}", field="password")
    plain = password.casefold()
    if plain in _WORST or _DECORATION.sub("", plain) in _STEMS | _WORST or _is_row(plain):
        raise WeakPassword(f"the password is one of the first that are tried: {RULE}", field="password")
    if len(set(plain)) < _LEAST_VARIED:
        raise WeakPassword(f"the password repeats itself: {RULE}", field="password")
    for one in about:
        for part in {one or "", (one or "").partition("@")[0]}:
            if len(part) > 3 and part.casefold() in plain and len(plain) - len(part) < SHORTEST - 4:
                raise WeakPassword(f"the password is mostly your name or address: {RULE}", field="password")


def _is_text(password: str) -> bool:
    """JSON can carry halves of characters, which no hash takes."""
    try:
        password.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_row(text: str) -> bool:
    """Whether each character is the one after that before it, or the one before: `abcdef`, `654321`."""
    steps = {ord(after) - ord(before) for before, after in pairwise(text)}
    return steps in ({1}, {-1}, {0}) or text in "01234567890123456789" or text in "98765432109876543210"


class Passwords:
    """Hashes take some 50 MB and a core each while they are made, so only so many are made at once, and only
    so many wait.

    Args:
        hashes: made on first use, in a thread.
    """

    def __init__(self, hashes: Callable[[], Hashes], *, at_once: int = 2) -> None:
        self._make = hashes
        self._hashes: Hashes | None = None
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="passwords")
        self._waiting = 0

    async def hashed(self, password: str) -> str:
        """
        Raises:
            Overloaded: too many are being hashed.
        """
        return await self._run(lambda hashes: hashes.hashed(password))

    async def matches(self, password: str, stored: str | None) -> bool:
        """
        Args:
            stored: None: there is nothing to compare with, which takes as long.

        Raises:
            Overloaded: too many are being hashed.
        """
        if len(password) > LONGEST or not _is_text(password):
            password, stored = "", None
        return await self._run(lambda hashes: hashes.matches(password, stored))

    async def renewed(self, password: str, stored: str) -> str | None:
        """The hash of a password that matched, where the stored one is of a kind we make no more.

        Raises:
            Overloaded: too many are being hashed.
        """
        return await self._run(lambda hashes: hashes.hashed(password) if hashes.is_old(stored) else None)

    def close(self) -> None:
        """Wait for those that are being made."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def _run(self, work: Callable[[Hashes], Result]) -> Result:
        if self._waiting >= _MOST_WAITING:
            raise Overloaded("too many people log in at this moment", retry_after_s=_RETRY_AFTER_S)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._do, work)
        finally:
            self._waiting -= 1

    def _do(self, work: Callable[[Hashes], Result]) -> Result:
        hashes = self._hashes
        if hashes is None:
            hashes = self._hashes = self._make()
        return work(hashes)
