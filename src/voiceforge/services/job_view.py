"""How far a job is, as those who ask are told."""

from __future__ import annotations

from dataclasses import dataclass

from voiceforge.infra.db.records import Job, JobStatus
from voiceforge.speech.transcript.types import Transcript


@dataclass(frozen=True, slots=True)
class JobView:
    """percent: of the audio that is done, 0 to 100. seconds_left: None where not known yet.
    queue_position: 0 for the next one; None where it does not wait. transcript: of a completed one whose text
    was not erased."""

    job: Job
    percent: float
    seconds_left: float | None
    queue_position: int | None
    transcript: Transcript | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A transcription whose text holds what was looked for; excerpt: with « and » around it."""

    view: JobView
    excerpt: str

    @property
    def job(self) -> Job:
        return self.view.job


def view_of(
    job: Job, now: float, queue_position: int | None = None, transcript: Transcript | None = None
) -> JobView:
    """How far a job is at `now`, Unix seconds."""
    if job.status is JobStatus.COMPLETED:
        return JobView(job, 100.0, 0.0, None, transcript)
    percent = 0.0
    left: float | None = None
    if job.duration_s:
        percent = min(100.0 * job.done_s / job.duration_s, 99.9)
        if job.status is JobStatus.RUNNING and job.ends_at is not None:
            left = max(job.ends_at - now, 0.0)
    return JobView(job, round(percent, 1), left, queue_position, transcript)
