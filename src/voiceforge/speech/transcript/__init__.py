"""Words, segments, transcripts and the events that announce them: frozen values, no behaviour."""

from voiceforge.speech.transcript.events import Finished, Progress, SegmentReady, TranscribeEvent
from voiceforge.speech.transcript.types import (
    Coverage,
    Gap,
    Language,
    ModelRef,
    Removal,
    Segment,
    Transcript,
    TranscriptWarning,
    Word,
)

__all__ = [
    "Coverage",
    "Finished",
    "Gap",
    "Language",
    "ModelRef",
    "Progress",
    "Removal",
    "Segment",
    "SegmentReady",
    "TranscribeEvent",
    "Transcript",
    "TranscriptWarning",
    "Word",
]
