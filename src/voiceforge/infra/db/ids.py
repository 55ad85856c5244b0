"""Ids that sort by when they were made, and that nobody can guess."""

from __future__ import annotations

import secrets


def new_id(prefix: str, at: float) -> str:
    """Like `tr_` and 32 hexadecimal digits: 12 of the milliseconds since 1970, 20 by chance.

    Args:
        at: Unix seconds.
    """
    return f"{prefix}_{int(at * 1000):012x}{secrets.token_hex(10)}"


def first_id(prefix: str, at: float) -> str:
    """No id that was made earlier sorts behind it. at: Unix seconds."""
    return f"{prefix}_{int(at * 1000):012x}"


def new_token() -> str:
    """For a lease: who has it may write."""
    return secrets.token_hex(16)
