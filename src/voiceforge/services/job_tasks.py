"""How the queue is told of a job."""

from __future__ import annotations

from voiceforge.infra.db.records import Job, Rank
from voiceforge.infra.jobqueue.base import Lane, Task, TaskKind


def task_of(job: Job) -> Task:
    return Task(TaskKind.TRANSCRIPTION, job.id, lane_of(job.rank), priority=3 * int(job.rank))


def lane_of(rank: Rank) -> Lane:
    return Lane.INTERACTIVE if rank is Rank.HIGH else Lane.BULK
