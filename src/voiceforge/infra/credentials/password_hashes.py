"""Hashes of passwords: argon2id, and bcrypt of those who come from elsewhere. Blocks, and takes memory."""

from __future__ import annotations

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

# The first recommendation of OWASP's Password Storage Cheat Sheet for argon2id.
_MEMORY_KIB = 47_104
_PASSES = 1
_LANES = 1

_BCRYPT = ("$2a$", "$2b$", "$2y$")
_BCRYPT_BYTES = 72
"""More of a password than this bcrypt never looked at."""
_DEAREST_BCRYPT = 15
"""A hash that says more rounds would keep a thread for many seconds at every log-in."""


class PasswordHashes:
    """Args:
    memory_kib, passes: of argon2id; less only in tests.
    """

    def __init__(self, *, memory_kib: int = _MEMORY_KIB, passes: int = _PASSES) -> None:
        self._argon2 = PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=_LANES)
        self._of_nobody = self._argon2.hash("nobody has this password")

    def hashed(self, password: str) -> str:
        return self._argon2.hash(password)

    def matches(self, password: str, stored: str | None) -> bool:
        """stored: None: there is nothing to compare with, which takes as long."""
        if stored is not None and stored.startswith(_BCRYPT):
            return _matches_bcrypt(password, stored)
        try:
            matched = self._argon2.verify(stored if stored is not None else self._of_nobody, password)
        except (Argon2Error, InvalidHashError, ValueError):  # it only looked like a hash, or not even that
            return False
        return matched and stored is not None

    def is_old(self, stored: str) -> bool:
        """Whether `hashed` would make another kind of hash."""
        return stored.startswith(_BCRYPT) or self._argon2.check_needs_rehash(stored)


def is_hash(text: str) -> bool:
    """Whether it is one that `matches` understands."""
    if text.startswith(_BCRYPT):
        return len(text) == 60 and text[4:6].isdecimal() and int(text[4:6]) <= _DEAREST_BCRYPT
    return text.startswith("$argon2id$")


def _matches_bcrypt(password: str, stored: str) -> bool:
    if not is_hash(stored):
        return False
    try:
        return bcrypt.checkpw(password.encode()[:_BCRYPT_BYTES], stored.encode())
    except ValueError:  # it only looked like a hash
        return False
