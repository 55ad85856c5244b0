"""Text that is safe to put on one line of a file, and the names of who speaks."""

from __future__ import annotations

import re
import unicodedata

_LETTER_OR_NUMBER = re.compile(r"[A-Z]{1,2}|\d+")


def one_line(text: str) -> str:
    """Whitespace of every kind, newlines and tabs included, becomes single spaces; other control
    characters go."""
    spaced = " ".join(text.split())
    return "".join(char for char in spaced if unicodedata.category(char) not in ("Cc", "Cs"))


def voice_label(channel: int | None, speaker: str | None) -> str | None:
    """`Channel 1`, `Speaker A`, `Channel 1, Speaker A`, or the name a speaker has; None for neither.

    Channels count from 0 in a transcript and from 1 for people.
    """
    parts = []
    if channel is not None:
        parts.append(f"Channel {channel + 1}")
    name = one_line(speaker) if speaker is not None else ""
    if name:
        parts.append(f"Speaker {name}" if _LETTER_OR_NUMBER.fullmatch(name) else name)
    return ", ".join(parts) or None
