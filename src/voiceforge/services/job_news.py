"""What happened to a job, written in the transaction in which it happened: whoever is told later is told of
nothing that was undone, and of everything that was not. What webhooks are to be told stands in the same
transaction as a delivery for each of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from voiceforge.infra.db import batches, deliveries, events, webhooks
from voiceforge.infra.db.database import after_commit
from voiceforge.infra.db.records import Job, JobError, JobStatus
from voiceforge.infra.jobqueue.base import Lane, Task, TaskKind
from voiceforge.services.batch_view import BatchView
from voiceforge.services.webhook_events import BATCH_EVENT, host_of, new_webhook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncConnection

    from voiceforge.infra.db.records import Event
    from voiceforge.infra.jobqueue.base import JobQueue


class JobNews:
    """Args:
    queue: told of deliveries once they are committed; None: they are found by those who look for them.
    """

    def __init__(self, queue: JobQueue | None = None) -> None:
        self._queue = queue

    async def status(
        self,
        connection: AsyncConnection,
        job: Job,
        status: JobStatus,
        now: float,
        error: JobError | None = None,
        duration_s: float | None = None,
    ) -> None:
        """It is in this status now.

        Args:
            job: as it was before.
            now: Unix seconds.
            duration_s: of the audio, where that is known better by now.
        """
        data: dict[str, Any] = {"id": job.id}
        if status.is_final:
            known_s = duration_s if duration_s is not None else job.duration_s
            data |= {
                "status": status,
                "model": job.model,
                "duration": None if known_s is None else round(known_s, 3),
                "metadata": dict(job.metadata),
                "batch_id": job.batch_id,
            }
        if error is not None:
            data["error"] = asdict(error)
        event = await self._write(connection, job, f"transcription.{status}", data, now)
        if status.is_final:
            await self._send(connection, event, job.callback_url)
            if job.batch_id is not None:
                await self._look_at_batch(connection, job.tenant, job.batch_id, now)

    async def chunk(
        self, connection: AsyncConnection, job: Job, number: int, start: float, end: float, now: float
    ) -> None:
        """Another part of its text is here: from `start` to `end`, in seconds."""
        data = {"id": job.id, "chunk": number, "start": start, "end": end}
        await self._write(connection, job, "transcription.chunk", data, now)

    async def _look_at_batch(
        self, connection: AsyncConnection, tenant: str, batch_id: str, now: float
    ) -> None:
        """Tell of its end with that of its last transcription. Whoever ends another at the same time waits
        for this transaction, so that one of the two sees that it is the last."""
        batch = await batches.get(connection, tenant, batch_id, lock=True)
        if batch is not None and not await batches.goes_on(connection, batch_id):
            counts = await batches.counts(connection, [batch_id])
            await self.batch_over(connection, BatchView(batch, counts[batch_id]), now)

    async def batch_over(self, connection: AsyncConnection, view: BatchView, now: float) -> None:
        """None of it waits or is worked on any more. Told again when one of it was tried again."""
        batch = view.batch
        event = await events.add(
            connection, batch.tenant, BATCH_EVENT, view.summary(), now=now, batch_id=batch.id
        )
        await self._send(connection, event, batch.callback_url)

    async def _write(
        self, connection: AsyncConnection, job: Job, kind: str, data: Mapping[str, Any], now: float
    ) -> Event:
        return await events.add(connection, job.tenant, kind, data, now=now, transcription_id=job.id)

    async def _send(self, connection: AsyncConnection, event: Event, callback_url: str | None) -> None:
        """One delivery for every webhook that wants it, and one for the callback."""
        told = await webhooks.listening(connection, event.tenant, event.type)
        signer = next((one for one in told if one.url is None), None)
        goals = [(one, one.url) for one in told if one.url is not None]
        if callback_url is not None:
            if signer is None:
                signer = await webhooks.add_signer(
                    connection, new_webhook(event.tenant, None, (), event.created_at)
                )
            if signer.enabled:
                goals.append((signer, callback_url))
        tasks = []
        for webhook, url in goals:
            delivery_id = await deliveries.add(connection, webhook, event, url, host_of(url))
            tasks.append(Task(TaskKind.DELIVERY, delivery_id, Lane.MAINTENANCE))
        if self._queue is not None and tasks:
            queue = self._queue
            after_commit(connection, lambda: queue.offer(tasks))
