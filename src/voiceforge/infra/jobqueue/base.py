"""The seam to whoever does the work: told of ids, after they were committed.

A queue may lose, repeat or reorder what it was told: workers take jobs from the database, and a sweep tells
the queue again of those that nobody took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Lane(StrEnum):
    """Workers may serve some only, so that a heap in one does not hold up another."""

    INTERACTIVE = "interactive"
    BULK = "bulk"
    TRAINING = "training"
    MAINTENANCE = "maintenance"


class TaskKind(StrEnum):
    TRANSCRIPTION = "transcription"
    DELIVERY = "delivery"
    SWEEP = "sweep"


@dataclass(frozen=True, slots=True)
class Task:
    """priority: 0 first, 9 last, within its lane. delay_s: not before."""

    kind: TaskKind
    id: str
    lane: Lane
    priority: int = 5
    delay_s: float = 0.0


class JobQueue(Protocol):
    async def offer(self, tasks: Sequence[Task]) -> None:
        """Tell workers. Never raises for a queue that is away: it is told again later."""
        ...

    async def close(self) -> None: ...
