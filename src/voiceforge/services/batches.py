"""Batches: many recordings sent together and accepted in one transaction, each then a transcription of its
own."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pydantic_core import to_json

from voiceforge.errors import Conflict, ErrorKind, NotFound, VoiceForgeError
from voiceforge.infra.db import batches as rows
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.records import Batch, Job, JobStatus, Recording, RefusedItem
from voiceforge.infra.db.transcriptions import IdempotencyKeyTaken
from voiceforge.services.access import OWNER, Caller, Scope
from voiceforge.services.audit import record
from voiceforge.services.batch_view import BatchView
from voiceforge.services.job_intake import JobIntake, JobRequest, Prepared, RecordingGone
from voiceforge.services.job_news import JobNews
from voiceforge.services.job_view import JobView, view_of
from voiceforge.services.jobs import Jobs

_CHECKED_AT_ONCE = 16
# What is wrong with one item; anything else is wrong with all.
_ONE_S_OWN = frozenset(
    {
        ErrorKind.INVALID_REQUEST,
        ErrorKind.UNSUPPORTED_OPTION,
        ErrorKind.INVALID_AUDIO,
        ErrorKind.AUDIO_OUT_OF_LIMITS,
        ErrorKind.NOT_FOUND,
    }
)


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """items: what is to be transcribed, or why an item was refused already. callback_url: told when all of it
    is over."""

    items: Sequence[JobRequest | VoiceForgeError]
    caller: Caller = OWNER
    metadata: Mapping[str, Any] = field(default_factory=dict)
    callback_url: str | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class BatchItems:
    """more: there are some behind the last of these."""

    items: Sequence[JobView]
    more: bool


@dataclass(frozen=True, slots=True)
class SubmittedBatch:
    """created: False where an earlier request with the same idempotency key had made it."""

    view: BatchView
    created: bool


class Batches:
    """Args:
    clock: Unix seconds.
    """

    def __init__(
        self,
        database: Database,
        intake: JobIntake,
        jobs: Jobs,
        news: JobNews,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._intake = intake
        self._jobs = jobs
        self._news = news
        self._clock = clock

    async def submit(self, request: BatchRequest) -> SubmittedBatch:
        """Accept what can be accepted, all of it or nothing; what cannot is listed in the batch.

        Raises:
            UrlRefused: we do not call the batch's callback_url.
            Conflict: the idempotency key came with another request before.
            Unavailable, StorageFull: nothing was accepted.
        """
        if request.callback_url is not None:
            await self._intake.check_callback(request.callback_url)
        free = asyncio.Semaphore(_CHECKED_AT_ONCE)
        checked = await asyncio.gather(*(self._checked(item, free) for item in request.items))
        batch, accepted = self._new(request, checked)
        earlier = await self._earlier(batch)
        if earlier is not None:
            return SubmittedBatch(earlier, created=False)
        stored: list[Recording | None] = [None] * len(accepted)
        while True:
            for number, prepared in enumerate(accepted):
                if stored[number] is None:
                    stored[number] = await self._intake.store(prepared)
            try:
                jobs = await self._accept(batch, accepted, stored)
            except RecordingGone:
                continue
            except IdempotencyKeyTaken:
                earlier = await self._earlier(batch)  # at the same time as this one
                if earlier is None:
                    raise
                return SubmittedBatch(earlier, created=False)
            break
        for recording, job in zip(stored, jobs, strict=True):
            await self._intake.discard_unused(recording, job)
        await self._intake.announce(jobs)
        counts = {JobStatus.QUEUED: len(jobs)} if jobs else {}
        return SubmittedBatch(BatchView(batch, counts), created=True)

    async def _checked(
        self, item: JobRequest | VoiceForgeError, free: asyncio.Semaphore
    ) -> Prepared | VoiceForgeError:
        if isinstance(item, VoiceForgeError):
            return item
        async with free:
            try:
                return await self._intake.prepare(item)
            except VoiceForgeError as error:
                if error.kind not in _ONE_S_OWN:
                    raise
                return error

    def _new(
        self, request: BatchRequest, checked: Sequence[Prepared | VoiceForgeError]
    ) -> tuple[Batch, list[Prepared]]:
        now = self._clock()
        refused = tuple(
            RefusedItem(index, item.kind, item.code, item.message, item.field)
            for index, item in enumerate(checked)
            if isinstance(item, VoiceForgeError)
        )
        asked = {
            "metadata": dict(request.metadata),
            "callback_url": request.callback_url,
            "refused": [asdict(item) for item in refused],
            "items": [item.digest for item in checked if isinstance(item, Prepared)],
        }
        batch = Batch(
            id=new_id("bat", now),
            tenant=request.caller.needs(Scope.TRANSCRIBE),
            metadata=request.metadata,
            size=len(checked),
            refused=refused,
            callback_url=request.callback_url,
            idempotency_key=request.idempotency_key,
            request_digest=hashlib.sha256(to_json(asked)).hexdigest(),
            created_at=now,
            user_id=request.caller.user_id,
        )
        accepted = [
            replace(item, new=replace(item.new, tenant=batch.tenant, batch_id=batch.id, batch_index=index))
            for index, item in enumerate(checked)
            if isinstance(item, Prepared)
        ]
        return batch, accepted

    async def _earlier(self, batch: Batch) -> BatchView | None:
        """
        Raises:
            Conflict: that request asked for something else.
        """
        if batch.idempotency_key is None:
            return None
        async with self._database.reading() as connection:
            found = await rows.by_idempotency_key(connection, batch.tenant, batch.idempotency_key)
            if found is None:
                return None
            if found.request_digest != batch.request_digest:
                raise Conflict(
                    "this Idempotency-Key came with another request before; use a new one",
                    field="Idempotency-Key",
                )
            return BatchView(found, (await rows.counts(connection, [found.id]))[found.id])

    async def _accept(
        self, batch: Batch, accepted: Sequence[Prepared], stored: Sequence[Recording | None]
    ) -> list[Job]:
        async with self._database.transaction() as connection:
            await rows.add(connection, batch)
            jobs = [
                await self._intake.write(connection, prepared, recording)
                for prepared, recording in zip(accepted, stored, strict=True)
            ]
            if not jobs:
                await self._news.batch_over(connection, BatchView(batch, {}), batch.created_at)
            return jobs

    async def show(self, caller: Caller, batch_id: str) -> BatchView:
        """
        Raises:
            NotFound, Unavailable
        """
        tenant = caller.needs(Scope.READ, Scope.TRANSCRIBE)
        async with self._database.reading() as connection:
            batch = await rows.get(connection, tenant, batch_id)
            if batch is None:
                raise NotFound("there is no such batch")
            return BatchView(batch, (await rows.counts(connection, [batch_id]))[batch_id])

    async def items(self, batch: Batch, *, after: int = -1, limit: int = 20) -> BatchItems:
        """In the order they were sent, behind the one with index `after`."""
        async with self._database.reading() as connection:
            found = await rows.items(connection, batch.id, after=after, limit=limit + 1)
        now = self._clock()
        return BatchItems([view_of(job, now) for job in found[:limit]], len(found) > limit)

    async def list(
        self, caller: Caller, *, before: str | None = None, limit: int = 20
    ) -> Sequence[BatchView]:
        """The newest first, of those made before the one with id `before`."""
        tenant = caller.needs(Scope.READ)
        async with self._database.reading() as connection:
            found = await rows.newest(connection, tenant, before=before, limit=limit)
            counts = await rows.counts(connection, [batch.id for batch in found])
        return [BatchView(batch, counts[batch.id]) for batch in found]

    async def erase(self, caller: Caller, batch_id: str) -> None:
        """Stop what is not over, and leave nothing of it. What fails half-way goes on with another call.

        Raises:
            NotFound, Unavailable
        """
        tenant = caller.needs(Scope.WRITE)
        batch = (await self.show(caller, batch_id)).batch
        while (found := await self.items(batch, limit=100)).items:
            for item in found.items:
                try:
                    await self._jobs.erase(caller, item.job.id)
                except NotFound:
                    continue  # by somebody else, just now
        async with self._database.transaction() as connection:
            await rows.forget(connection, tenant, batch_id)
            await record(connection, caller, "batch.erased", batch_id, at=self._clock(), items=batch.size)
