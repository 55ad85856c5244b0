"""How long a worker of jobs is believed, how often it tries, and whom it tells."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RunRules:
    """lease_s: until a silent worker is taken for dead. heartbeat_s: between renewals. look_s: between looks
    whether somebody wants it stopped. max_attempts: that began and came no further. backoff_s: before the
    second attempt, doubled for each further one up to max_backoff_s."""

    lease_s: float = 30.0
    heartbeat_s: float = 5.0
    look_s: float = 1.0
    max_attempts: int = 5
    backoff_s: float = 2.0
    max_backoff_s: float = 600.0

    def wait_s(self, attempts: int) -> float:
        """Before the next attempt, after so many; spread, so that what failed together does not come back
        together."""
        wait_s = min(self.backoff_s * 2.0 ** max(attempts - 1, 0), self.max_backoff_s)
        return wait_s * random.uniform(0.8, 1.2)  # noqa: S311


class JobObserver(Protocol):
    """What those who work on jobs report to whoever keeps the metrics."""

    def job_ended(self, status: str, *, seconds: float, code: str | None = None) -> None: ...
    def job_retried(self, code: str) -> None: ...
