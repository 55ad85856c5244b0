"""Sizes and durations as people read them."""

from __future__ import annotations


def bytes_text(size: float) -> str:
    """`512 B`, `44 MB`, `1.5 GB`; decimal units, as stores print them."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration_text(seconds: float) -> str:
    """`1.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def speed_text(audio_s: float, seconds: float) -> str:
    """How many seconds of audio per second of work: `36x`."""
    if seconds <= 0.0:
        return "–"
    speed = audio_s / seconds
    return f"{speed:.0f}x" if speed >= 10 else f"{speed:.1f}x"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
