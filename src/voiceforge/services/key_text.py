"""API keys as people see them: `vf_<public>_<secret><check>`.

The public part tells keys apart, in lists and logs. The check lets a mistyped key be refused without looking
anywhere; it protects nothing.
"""

from __future__ import annotations

import re
import secrets
import zlib

PREFIX = "vf_"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PUBLIC_CHARS = 8
_SECRET_CHARS = 32
_CHECK_CHARS = 6
_FORM = re.compile(
    f"{PREFIX}[0-9A-Za-z]{{{_PUBLIC_CHARS}}}_[0-9A-Za-z]{{{_SECRET_CHARS + _CHECK_CHARS}}}", re.ASCII
)


def new_key() -> str:
    """One that nobody can guess: its secret holds 190 bits."""
    body = f"{PREFIX}{_random(_PUBLIC_CHARS)}_{_random(_SECRET_CHARS)}"
    return body + _check(body)


def is_whole(text: str) -> bool:
    """Whether it looks like one of ours, without a slip in it."""
    if not _FORM.fullmatch(text):
        return False
    return text[-_CHECK_CHARS:] == _check(text[:-_CHECK_CHARS])


def hint_of(key: str) -> str:
    """Its first characters, which may be shown."""
    return key[: len(PREFIX) + _PUBLIC_CHARS]


def _random(count: int) -> str:
    return "".join(secrets.choice(_DIGITS) for _ in range(count))


def _check(body: str) -> str:
    rest, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECK_CHARS):
        rest, digit = divmod(rest, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
