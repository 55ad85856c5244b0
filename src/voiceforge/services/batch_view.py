"""How far a batch is: what its transcriptions are, put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from voiceforge.infra.db.records import Batch, JobStatus


@dataclass(frozen=True, slots=True)
class BatchView:
    """counts: of its transcriptions; the refused and the erased are in none."""

    batch: Batch
    counts: Mapping[JobStatus, int]

    @property
    def status(self) -> JobStatus:
        """queued, running; completed where any item is, else failed or cancelled."""
        count = self.counts
        if count.get(JobStatus.RUNNING) or (count.get(JobStatus.QUEUED) and set(count) != {JobStatus.QUEUED}):
            return JobStatus.RUNNING
        for status in (JobStatus.QUEUED, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED):
            if count.get(status):
                return status
        return JobStatus.FAILED if self.batch.refused else JobStatus.COMPLETED

    @property
    def partial_failure(self) -> bool:
        """Some failed or were refused, and not all."""
        failed = self.counts.get(JobStatus.FAILED, 0) + len(self.batch.refused)
        return 0 < failed < self.batch.size

    def summary(self) -> dict[str, Any]:
        """As JSON, without the refused items themselves."""
        counts = {status.value: self.counts.get(status, 0) for status in JobStatus}
        return {
            "id": self.batch.id,
            "status": self.status.value,
            "size": self.batch.size,
            "counts": {**counts, "refused": len(self.batch.refused)},
            "partial_failure": self.partial_failure,
            "metadata": dict(self.batch.metadata),
        }
