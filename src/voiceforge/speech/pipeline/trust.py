"""What keeps a transcript honest: speech without text is decoded again and then reported, and text
that nobody said is taken out and listed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ
from voiceforge.speech.engines.base import HypothesisSegment
from voiceforge.speech.text.loops import strip_loops
from voiceforge.speech.text.nonspeech import SpeechEvidence, is_invented
from voiceforge.speech.transcript.types import Coverage, Gap, Removal
from voiceforge.speech.vad.regions import Region

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

    def add(self, other: Account) -> None:
        """Enter all that another account holds."""
        self.speech_s += other.speech_s
        self.transcribed_s += other.transcribed_s
        self.gaps += other.gaps
        self.removed += other.removed

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


def without_inventions(
    heard: HypothesisSegment, regions: Sequence[Region], first_sample: int, n_samples: int
) -> tuple[HypothesisSegment, list[Removal]]:
    """The segment without loops and without text that nobody said, and what was taken out.

    Args:
        regions: speech in the window it was heard in, which is `n_samples` from `first_sample` on.
    """
    offset, seconds = first_sample / SAMPLE_RATE_HZ, n_samples / SAMPLE_RATE_HZ
    start, end = offset + heard.start, offset + min(heard.end, seconds)
    loops = strip_loops(heard.text, seconds)
    removed = [Removal(start, end, text, "repetition_loop") for text in loops.removed]
    if loops.removed:
        heard = replace(heard, text=loops.kept, words=(), word_confidences=())
    speech = [region for region in regions if region.samples]
    evidence = SpeechEvidence(
        text=heard.text,
        speech_s=sum(region.samples for region in speech) / SAMPLE_RATE_HZ,
        speech_probability=max((region.probability for region in speech), default=0.0),
        avg_logprob=heard.avg_logprob,
        no_speech_prob=heard.no_speech_prob,
    )
    reason = is_invented(evidence) if heard.text else None
    if reason is not None:
        removed.append(Removal(start, end, heard.text, reason))
        heard = replace(heard, text="", words=(), word_confidences=())
    return heard, removed
