"""The seam to whoever does the work: told of ids, after they were committed.

A queue may lose, repeat or reorder what it was told: workers take jobs from the database, and a sweep tells
the queue again of those that nobody took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """Belongs to one event loop."""

    async def offer(self, tasks: Sequence[Task]) -> bool:
        """Tell workers; whether they were told, as far as one can know. Never raises for a queue that is
        away, and does not wait long for it: whoever looks after the jobs tells it again later."""
        ...

    async def held(self) -> Mapping[Lane, int] | None:
        """How many tasks it holds that no worker has yet. None: it cannot be asked now, or it holds none but
        rings a bell."""
        ...

    async def close(self) -> None: ...
