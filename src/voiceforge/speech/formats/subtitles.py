"""The rules subtitles keep to: a value, checked where it is made."""

from __future__ import annotations

from dataclasses import dataclass

from voiceforge.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class SubtitleOptions:
    """How captions are laid out. Widths count East Asian wide characters as two.

    max_chars_per_s: reading speed; a cue stays longer, into the silence after it, to keep to it.
        20 is the Netflix timed text guide's rate for adult programmes, as are 2 lines of 42 and 7 s.
    min_duration_s: a cue stays at least this long where the next one leaves room.
    min_gap_s: between two cues, unless that would take a cue below `min_duration_s`.
    """

    max_lines: int = 2
    max_line_chars: int = 42
    max_chars_per_s: float = 20.0
    min_duration_s: float = 0.8
    max_duration_s: float = 7.0
    min_gap_s: float = 0.08

    def __post_init__(self) -> None:
        if not 1 <= self.max_lines <= 10:
            raise InvalidRequest("max_lines must lie between 1 and 10", field="max_lines")
        if not 10 <= self.max_line_chars <= 200:
            raise InvalidRequest("max_line_chars must lie between 10 and 200", field="max_line_chars")
        if not 1.0 <= self.max_chars_per_s <= 1000.0:
            raise InvalidRequest("max_chars_per_s must lie between 1 and 1000", field="max_chars_per_s")
        if not 0.0 <= self.min_duration_s <= 10.0:
            raise InvalidRequest("min_duration_s must lie between 0 and 10", field="min_duration_s")
        if not max(self.min_duration_s, 0.5) <= self.max_duration_s <= 60.0:
            raise InvalidRequest(
                "max_duration_s must lie between min_duration_s (at least 0.5) and 60", field="max_duration_s"
            )
        if not 0.0 <= self.min_gap_s <= 2.0:
            raise InvalidRequest("min_gap_s must lie between 0 and 2", field="min_gap_s")
