"""Transcriptions that are worked on in their own time: shown, found, cancelled, erased, tried again.

How they are accepted is the business of `job_intake`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING

from voiceforge.errors import Conflict, NotFound
from voiceforge.infra.blobs.base import Blobs
from voiceforge.infra.db import chunks, events, recordings, results, search
from voiceforge.infra.db import transcriptions as rows
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.records import Event, Job, JobFilter, JobStatus
from voiceforge.infra.jobqueue.base import JobQueue
from voiceforge.services.access import Caller, Scope
from voiceforge.services.audit import reads_anothers, record
from voiceforge.services.job_intake import JobIntake, JobRequest, Submitted
from voiceforge.services.job_news import JobNews
from voiceforge.services.job_tasks import task_of
from voiceforge.services.job_view import Found, JobView, view_of
from voiceforge.services.result_codec import ResultCodec
from voiceforge.speech.transcript.types import Transcript

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

# What callers need of the room below, which surfaces do not see.
__all__ = ["JobFilter", "JobStatus", "Jobs"]

_LOOK_EVERY_S = 0.5
# One more than a page has, which tells whether there is another.
_MOST_LISTED = 101


class Jobs:
    """Args:
    intake: accepts them.
    clock: Unix seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        queue: JobQueue,
        intake: JobIntake,
        news: JobNews,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._queue = queue
        self._intake = intake
        self._news = news
        self._clock = clock
        self._codec = ResultCodec()

    async def submit(self, request: JobRequest) -> Submitted:
        """As `JobIntake.submit`."""
        return await self._intake.submit(request)

    async def show(self, caller: Caller, job_id: str, *, whole: bool = True) -> JobView:
        """
        Args:
            whole: with the transcript.

        Raises:
            NotFound, Unavailable
        """
        either = (Scope.READ,) if whole else (Scope.READ, Scope.TRANSCRIBE, Scope.WRITE)
        tenant = caller.needs(*either)
        async with self._database.reading() as connection:
            job = await self._get(connection, tenant, job_id)
            waits = job.status is JobStatus.QUEUED
            ahead = await rows.ahead_of(connection, job) if waits else None
            with_text = whole and job.status is JobStatus.COMPLETED
            data = await results.get(connection, tenant, job_id) if with_text else None
        if data is not None:
            await self._note_reading(caller, job)
        transcript = None if data is None else await asyncio.to_thread(self._codec.unpack, job_id, data)
        return view_of(job, self._clock(), ahead, transcript)

    async def completed(self, caller: Caller, job_id: str) -> JobView:
        """One with its transcript.

        Raises:
            NotFound: there is no such transcription, or its text was erased.
            Conflict: it is not completed.
        """
        view = await self.show(caller, job_id)
        if view.transcript is not None:
            return view
        if view.job.status is JobStatus.COMPLETED:
            raise NotFound("the text of this transcription was erased")
        raise Conflict(f"this transcription is {view.job.status}; only a completed one has a result")

    async def transcript(self, caller: Caller, job_id: str) -> Transcript:
        """
        Raises: as `completed` does.
        """
        view = await self.completed(caller, job_id)
        assert view.transcript is not None
        return view.transcript

    async def list(
        self,
        caller: Caller,
        wanted: JobFilter = JobFilter(),  # noqa: B008  # frozen
        *,
        before: str | None = None,
        limit: int = 20,
    ) -> Sequence[JobView]:
        """The newest first, at most `limit` (up to 101) of those made before the one with id `before`."""
        tenant = caller.needs(Scope.READ)
        async with self._database.reading() as connection:
            found = await rows.newest(
                connection, tenant, wanted, before=before, limit=min(limit, _MOST_LISTED)
            )
        return [view_of(job, self._clock()) for job in found]

    async def search(
        self, caller: Caller, query: str, *, before: str | None = None, limit: int = 20
    ) -> Sequence[Found]:
        """Completed transcriptions whose text has every word of the query, what was finished last first. A
        word that ends in * stands for all that begin so."""
        tenant = caller.needs(Scope.READ)
        words = query.split()
        async with self._database.reading() as connection:
            hits = await search.search(
                connection, tenant, words, before=before, limit=min(limit, _MOST_LISTED)
            )
            jobs = await rows.by_ids(connection, tenant, [hit.transcription_id for hit in hits])
        others = [job.id for job in jobs.values() if reads_anothers(caller, job.user_id)]
        if others:
            async with self._database.transaction() as connection:
                await record(connection, caller, "transcription.searched", at=self._clock(), found=others)
        now = self._clock()
        return [
            Found(view_of(jobs[hit.transcription_id], now), hit.excerpt)
            for hit in hits
            if hit.transcription_id in jobs
        ]

    async def cancel(self, caller: Caller, job_id: str) -> Job:
        """It is not begun, or stops within seconds.

        Raises:
            NotFound, Unavailable
            Conflict: it is over.
        """
        tenant = caller.needs(Scope.WRITE)
        async with self._database.transaction() as connection:
            job = await self._get(connection, tenant, job_id, lock=True)
            if job.status.is_final:
                raise Conflict(f"this transcription is {job.status} already")
            if await rows.end_waiting(connection, job, JobStatus.CANCELLED, self._clock()):
                await self._news.status(connection, job, JobStatus.CANCELLED, self._clock())
            else:
                await rows.request_cancel(connection, job_id)
            await record(connection, caller, "transcription.cancelled", job_id, at=self._clock())
            return await self._get(connection, tenant, job_id)

    async def erase(self, caller: Caller, job_id: str) -> None:
        """Stop it where it is not over, and leave nothing of it: row, text, events, and the audio unless
        another transcription of the tenant has the same.

        Raises:
            NotFound, Unavailable
        """
        tenant = caller.needs(Scope.WRITE)
        async with self._database.transaction() as connection:
            await self.forget(connection, await self._get(connection, tenant, job_id, lock=True))
            await record(connection, caller, "transcription.erased", job_id, at=self._clock())
        await self.remove_erased()

    async def forget(self, connection: AsyncConnection, job: Job) -> None:
        """Its rows, by who has locked it; `remove_erased` is for after the transaction."""
        if job.recording_id is not None:
            await recordings.lock(connection, job.recording_id)
        await chunks.forget(connection, job.id)
        await results.forget(connection, job.id, self._clock())
        await rows.forget(connection, job.id)
        if job.recording_id is not None and not await rows.refers_to(connection, job.recording_id):
            await recordings.begin_erasing(connection, job.recording_id)

    async def remove_erased(self, limit: int = 100) -> int:
        """Remove the blobs of recordings that nobody refers to any more; how many it did."""
        async with self._database.reading() as connection:
            gone = await recordings.being_erased(connection, limit)
        for recording in gone:
            await self._blobs.delete(recording.blob_key)
            async with self._database.transaction() as connection:
                await recordings.forget(connection, recording.id)
        return len(gone)

    async def retry(self, caller: Caller, job_id: str) -> Job:
        """A failed or cancelled one is worked on again.

        Raises:
            NotFound, Unavailable
            Conflict: it is of another status, or its audio was erased.
        """
        tenant = caller.needs(Scope.WRITE)
        async with self._database.transaction() as connection:
            job = await self._get(connection, tenant, job_id, lock=True)
            if not await rows.queue_again(connection, job_id, self._clock()):
                why = "its audio was erased" if job.audio_erased_at is not None else f"it is {job.status}"
                raise Conflict(f"this transcription cannot be tried again: {why}")
            await self._news.status(connection, job, JobStatus.QUEUED, self._clock())
            await record(connection, caller, "transcription.retried", job_id, at=self._clock())
            job = await self._get(connection, tenant, job_id)
        await self._queue.offer([task_of(job)])
        return job

    async def events(
        self, caller: Caller, job_id: str, *, after: int = 0
    ) -> AsyncGenerator[Event | JobView, None]:
        """What happened after the event with seq `after`, then what happens, until the job is over. Between
        the events stand views of its progress, where that changed.

        Raises:
            NotFound, Unavailable
        """
        tenant = caller.needs(Scope.READ)
        shown: JobView | None = None
        while True:
            view = await self.show(caller, job_id, whole=False)  # before its events: it may end between
            async with self._database.reading() as connection:
                news = await events.of(connection, tenant, job_id, after=after)
            for event in news:
                after = event.seq
                yield event
            if news:
                continue
            if view.job.status.is_final:
                return
            if shown is None or view.percent != shown.percent:
                shown = view
                yield view
            await asyncio.sleep(_LOOK_EVERY_S)

    async def note_reading(self, caller: Caller, job_id: str) -> None:
        """Before its text is given to somebody in another way than by this service: it is noted where they
        are not the author.

        Raises:
            Unavailable
        """
        async with self._database.reading() as connection:
            job = await rows.get(connection, caller.tenant, job_id)
        if job is not None:
            await self._note_reading(caller, job)

    async def _note_reading(self, caller: Caller, job: Job) -> None:
        if reads_anothers(caller, job.user_id):
            async with self._database.transaction() as connection:
                await record(connection, caller, "transcription.read", job.id, at=self._clock())

    async def _get(self, connection: AsyncConnection, tenant: str, job_id: str, *, lock: bool = False) -> Job:
        job = await rows.get(connection, tenant, job_id, lock=lock)
        if job is None:
            raise NotFound("there is no such transcription")
        return job
