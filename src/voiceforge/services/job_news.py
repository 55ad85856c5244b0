"""What happened to a job, written in the transaction in which it happened: whoever is told later is told of
nothing that was undone, and of everything that was not."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from voiceforge.infra.db import events
from voiceforge.infra.db.records import Job, JobError, JobStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection


class JobNews:
    """Args:
    job: as it was before; its status is told apart.
    now: Unix seconds.
    """

    async def status(
        self,
        connection: AsyncConnection,
        job: Job,
        status: JobStatus,
        now: float,
        error: JobError | None = None,
    ) -> None:
        """It is in this status now."""
        data: dict[str, Any] = {"id": job.id}
        if error is not None:
            data["error"] = asdict(error)
        await self._write(connection, job, f"transcription.{status}", data, now)

    async def chunk(
        self, connection: AsyncConnection, job: Job, number: int, start: float, end: float, now: float
    ) -> None:
        """Another part of its text is here: from `start` to `end`, in seconds."""
        data = {"id": job.id, "chunk": number, "start": start, "end": end}
        await self._write(connection, job, "transcription.chunk", data, now)

    async def _write(
        self, connection: AsyncConnection, job: Job, kind: str, data: Mapping[str, Any], now: float
    ) -> None:
        await events.add(connection, job.tenant, kind, data, now=now, transcription_id=job.id)
