"""What keeps a transcript honest: speech without text is decoded again and then reported, and text
that nobody said is taken out and listed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from voiceforge.speech.transcript.types import Coverage, Gap, Removal

MIN_GAP_S = 0.5
"""Shorter stretches of speech without text are a breath or a click, not a loss."""


@dataclass(slots=True)
class Account:
    """Adds up, over all windows and channels, what was spoken, what became text and what did not."""

    speech_s: float = 0.0
    transcribed_s: float = 0.0
    gaps: list[Gap] = field(default_factory=list)
    removed: list[Removal] = field(default_factory=list)

    def spoken(self, start: float, end: float, *, with_text: bool, removed: bool = False) -> None:
        """Enter one speech region, in seconds."""
        self.speech_s += end - start
        if with_text:
            self.transcribed_s += end - start
        elif end - start >= MIN_GAP_S:
            self.gaps.append(Gap(start, end, "removed" if removed else "no_text"))

    def restore(
        self, speech_s: float, transcribed_s: float, gaps: Iterable[Gap], removed: Iterable[Removal]
    ) -> None:
        """Enter what an earlier run found: sums up to here, and what came since the last entry."""
        self.speech_s, self.transcribed_s = speech_s, transcribed_s
        self.gaps += gaps
        self.removed += removed

    def coverage(self) -> Coverage:
        gaps: list[Gap] = []
        for gap in sorted(self.gaps, key=lambda gap: (gap.start, gap.end)):
            # A region that was heard again in halves, or cut because it was long, is one gap.
            if gaps and gaps[-1].end == gap.start and gaps[-1].reason == gap.reason:
                gaps[-1] = Gap(gaps[-1].start, gap.end, gap.reason)
            else:
                gaps.append(gap)
        return Coverage(self.speech_s, self.transcribed_s, tuple(gaps))
