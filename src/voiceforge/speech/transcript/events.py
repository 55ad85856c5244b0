"""What a running file transcription reports, in order: Progress and SegmentReady, then one Finished."""

from __future__ import annotations

from dataclasses import dataclass

from voiceforge.speech.transcript.types import Segment, Transcript


@dataclass(frozen=True, slots=True)
class Progress:
    """`processed_s` seconds of audio are done; `duration_s` is None while the length is not known.

    work_done, work_left: how much was done in this run, and how much is to be done yet as it looks now, None
    where nobody can tell; 1 is the work that a second of speech makes.
    """

    processed_s: float
    duration_s: float | None
    work_done: float = 0.0
    work_left: float | None = None


@dataclass(frozen=True, slots=True)
class SegmentReady:
    """A final segment; later events never change it."""

    segment: Segment


@dataclass(frozen=True, slots=True)
class Finished:
    """The whole document; the last event."""

    transcript: Transcript


TranscribeEvent = Progress | SegmentReady | Finished
