"""Whether what a caller sends can be kept: every database takes it, and gives it back as it came."""

from __future__ import annotations

import json
import re
from typing import Any

METADATA_BYTES = 16 * 1024
_METADATA_LEVELS = 32
# A NUL as JSON writes it; behind an escaped backslash the same letters are only letters.
_NUL_IN_JSON = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def storable(text: str) -> str:
    """
    Raises:
        ValueError: it holds a NUL, or half of a surrogate pair.
    """
    if "\0" in text:
        raise ValueError("holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair") from None
    return text


def json_object(value: Any) -> dict[str, Any]:
    """
    Args:
        value: the object, or its text as JSON.

    Raises:
        ValueError: it is none, too large, too deep, or holds what is no JSON.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError("is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    if _deeper(value, _METADATA_LEVELS):
        raise ValueError(f"is nested deeper than {_METADATA_LEVELS} levels")
    try:
        written = json.dumps(value, ensure_ascii=False, allow_nan=False)
        size_bytes = len(written.encode())
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair") from None
    except ValueError:
        raise ValueError("holds NaN or Infinity, which are no JSON") from None
    if size_bytes > METADATA_BYTES:
        raise ValueError(f"is larger than {METADATA_BYTES:,} bytes")
    if _NUL_IN_JSON.search(written):
        raise ValueError("holds a NUL character")
    return value


def _deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects stand within each other more often than `levels`."""
    if not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper(one, levels - 1) for one in inner)
