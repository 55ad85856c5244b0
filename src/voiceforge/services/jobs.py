"""Transcriptions that are worked on in their own time: submitted, shown, listed, cancelled, erased.

Submitting is one committed transaction; before it the audio is stored, after it the workers are told.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from pydantic_core import to_json

from voiceforge.errors import Conflict, InvalidRequest, NotFound
from voiceforge.infra.blobs.base import Blobs
from voiceforge.infra.db import chunks, events, recordings, results, search
from voiceforge.infra.db import transcriptions as rows
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.records import (
    Event,
    Job,
    JobError,
    JobFilter,
    JobStatus,
    NewJob,
    Rank,
    Recording,
    Retention,
)
from voiceforge.infra.jobqueue.base import JobQueue, Lane, Task, TaskKind
from voiceforge.services.job_news import JobNews
from voiceforge.services.recordings import (
    AudioBytes,
    AudioFile,
    LocalSource,
    Source,
    UrlSource,
    content_of,
    file_digest,
)
from voiceforge.services.result_codec import ResultCodec
from voiceforge.services.transcriptions import DEFAULT_TENANT, Transcriptions
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.transcript.types import Transcript
from voiceforge.telemetry.logger import Logger

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

# What callers of this module need of the records below it.
__all__ = [
    "Event",
    "Found",
    "Job",
    "JobError",
    "JobFilter",
    "JobRequest",
    "JobStatus",
    "JobView",
    "Jobs",
    "Prepared",
    "Rank",
    "RecordingGone",
    "Retention",
    "Submitted",
    "task_of",
    "view_of",
]

_log = Logger(__name__)

AUDIO_PREFIX = "audio"
"""Below it stand the blobs of recordings, by the recordings' ids."""
_LOOK_EVERY_S = 0.5
# One more than a page has, which tells whether there is another.
_MOST_LISTED = 101


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What is to be transcribed, and how. metadata: the caller's own, given back as it came. callback_shape:
    of a callback in a surface's own words: its `surface`, and what that will need of what was `asked`."""

    source: Source
    options: TranscribeOptions
    model: str | None = None
    tenant: str = DEFAULT_TENANT
    rank: Rank = Rank.NORMAL
    metadata: Mapping[str, Any] = field(default_factory=dict)
    filename: str | None = None
    callback_url: str | None = None
    callback_shape: Mapping[str, Any] | None = None
    idempotency_key: str | None = None
    retention: Retention | None = None
    batch_id: str | None = None


@dataclass(frozen=True, slots=True)
class Submitted:
    """created: False where an earlier request with the same idempotency key had made it."""

    job: Job
    created: bool


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


@dataclass(frozen=True, slots=True)
class Prepared:
    """Checked, not accepted yet. digest: of everything that was asked. source, sha256: None where the audio
    is to be fetched."""

    new: NewJob
    digest: str
    source: LocalSource | None
    sha256: bytes | None


class RecordingGone(Exception):
    """Audio that was to be shared is not here any more."""


class Jobs:
    """Args:
    check_url: raises UrlRefused for a recording's address that we do not fetch from.
    check_callback: raises UrlRefused for an address that we do not call; None: nobody is called.
    retention: of those whose request wishes no shorter one.
    clock: Unix seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        queue: JobQueue,
        transcriptions: Transcriptions,
        news: JobNews,
        check_url: Callable[[str], Awaitable[None]] | None = None,
        check_callback: Callable[[str], Awaitable[None]] | None = None,
        retention: Retention = Retention(),  # noqa: B008  # frozen
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._queue = queue
        self._transcriptions = transcriptions
        self._news = news
        self._check_url = check_url
        self._check_callback = check_callback
        self._retention = retention
        self._clock = clock
        self._options = TypeAdapter(TranscribeOptions)
        self._codec = ResultCodec()

    async def submit(self, request: JobRequest) -> Submitted:
        """Accept the work: once this returns, it will be done.

        Raises:
            ModelNotFound, ModelNotInstalled, UnsupportedOption, UrlRefused
            Conflict: the idempotency key came with another request before.
            Unavailable, StorageFull: nothing was accepted.
        """
        prepared = await self.prepare(request)
        new = prepared.new
        earlier = await self._earlier(new)
        if earlier is not None:
            return Submitted(earlier, created=False)
        submitted = await self._accept(prepared)
        if submitted.created:
            await self.announce([submitted.job])
        return submitted

    async def prepare(self, request: JobRequest) -> Prepared:
        """Check everything that can be known before it is accepted.

        Raises:
            ModelNotFound, ModelNotInstalled, UnsupportedOption, UrlRefused, InvalidRequest
        """
        model = self._transcriptions.check(request.model, request.options)
        if request.callback_url is not None:
            await self.check_callback(request.callback_url)
        source = request.source
        if isinstance(source, UrlSource) and self._check_url is not None:
            await self._check_url(source.url)
        if isinstance(source, UrlSource):
            return self._prepared(request, model, None, None)
        return self._prepared(request, model, source, await _digest(source))

    async def check_callback(self, url: str) -> None:
        """
        Raises:
            UrlRefused, InvalidRequest: we do not call it.
        """
        if self._check_callback is None:
            raise InvalidRequest("callbacks are switched off on this server", field="callback_url")
        await self._check_callback(url)

    def _prepared(
        self, request: JobRequest, model: str, source: LocalSource | None, sha256: bytes | None
    ) -> Prepared:
        now = self._clock()
        url = request.source.url if isinstance(request.source, UrlSource) else None
        asked = {
            "options": self._options.dump_python(request.options, mode="json"),
            "model": model,
            "rank": int(request.rank),
            "metadata": dict(request.metadata),
            "callback_url": request.callback_url,
            "url": url,
        }
        content = sha256.hex() if sha256 is not None else None
        digest = hashlib.sha256(to_json(asked | {"audio": content, "retention": request.retention}))
        new = NewJob(
            id=new_id("tr", now),
            tenant=request.tenant,
            rank=request.rank,
            model=model,
            options=asked["options"],
            metadata=request.metadata,
            created_at=now,
            url=url,
            filename=request.filename,
            callback_url=request.callback_url,
            callback_shape=request.callback_shape,
            batch_id=request.batch_id,
            idempotency_key=request.idempotency_key,
            request_digest=digest.hexdigest() if request.idempotency_key is not None else None,
            retention=self._retention.shortened(request.retention),
        )
        return Prepared(new, digest.hexdigest(), source, sha256)

    async def _earlier(self, new: NewJob) -> Job | None:
        """What an earlier request with the same key made.

        Raises:
            Conflict: that request asked for something else.
        """
        if new.idempotency_key is None:
            return None
        async with self._database.reading() as connection:
            job = await rows.by_idempotency_key(connection, new.tenant, new.idempotency_key)
        if job is not None and job.request_digest != new.request_digest:
            raise Conflict(
                "this Idempotency-Key came with another request before; use a new one",
                field="Idempotency-Key",
            )
        return job

    async def _accept(self, prepared: Prepared) -> Submitted:
        new = prepared.new
        while True:
            stored = await self.store(prepared)
            try:
                async with self._database.transaction() as connection:
                    job = await self.write(connection, prepared, stored)
                submitted = Submitted(job, created=True)
            except RecordingGone:
                continue  # erased between our looking and our accepting
            except rows.IdempotencyKeyTaken:
                earlier = await self._earlier(new)  # at the same time as this one
                if earlier is None:
                    raise
                submitted = Submitted(earlier, created=False)
            # Whatever else failed may have been committed all the same: the audio stays, for the sweep of
            # orphans to judge.
            if submitted.created:
                await self.discard_unused(stored, submitted.job)
            elif stored is not None:
                await self._discard(stored)
            return submitted

    async def store(self, prepared: Prepared) -> Recording | None:
        """Store the audio, unless the tenant has the same content here, or it is to be fetched. Nobody refers
        to it yet.

        Raises:
            Unavailable, StorageFull
        """
        if prepared.source is None or prepared.sha256 is None:
            return None
        tenant, source, sha256 = prepared.new.tenant, prepared.source, prepared.sha256
        async with self._database.reading() as connection:
            if await recordings.with_content(connection, tenant, sha256.hex()) is not None:
                return None
        now = self._clock()
        recording_id = new_id("rec", now)
        content = await asyncio.to_thread(content_of, source)
        uploaded = isinstance(source, AudioFile)  # ours, and not needed after this request
        blob = await self._blobs.put(f"{AUDIO_PREFIX}/{recording_id}", content, sha256=sha256, take=uploaded)
        return Recording(recording_id, tenant, sha256.hex(), blob.size_bytes, blob.key, now)

    async def write(self, connection: AsyncConnection, prepared: Prepared, stored: Recording | None) -> Job:
        """Within the transaction that accepts.

        Args:
            stored: what `store` gave.

        Raises:
            RecordingGone: the same content, which was here, was erased meanwhile: store it again.
            IdempotencyKeyTaken
        """
        new = prepared.new
        if prepared.sha256 is not None:
            same = await recordings.with_content(connection, new.tenant, prepared.sha256.hex())
            if same is None and stored is None:
                raise RecordingGone
            if same is None and stored is not None:
                await recordings.add(connection, stored)
            kept = same or stored
            assert kept is not None
            new = replace(new, recording_id=kept.id)
        await rows.add(connection, new)
        job = await rows.get(connection, new.tenant, new.id)
        assert job is not None
        await self._news.status(connection, job, JobStatus.QUEUED, new.created_at)
        return job

    async def announce(self, jobs: Sequence[Job]) -> None:
        """Tell the workers, once they are accepted."""
        await self._queue.offer([task_of(job) for job in jobs])

    async def discard_unused(self, stored: Recording | None, job: Job) -> None:
        """Remove what was stored for a job that took the same content from elsewhere."""
        if stored is not None and job.recording_id != stored.id:
            await self._discard(stored)

    async def _discard(self, recording: Recording) -> None:
        """Remove audio that no row knows of; what cannot be removed now is an orphan for the sweep."""
        try:
            await self._blobs.delete(recording.blob_key)
        except Exception as error:
            _log.warning("blob left behind", problem=type(error).__name__)

    async def show(self, tenant: str, job_id: str, *, whole: bool = True) -> JobView:
        """
        Args:
            whole: with the transcript.

        Raises:
            NotFound, Unavailable
        """
        async with self._database.reading() as connection:
            job = await self._get(connection, tenant, job_id)
            waits = job.status is JobStatus.QUEUED
            ahead = await rows.ahead_of(connection, job) if waits else None
            with_text = whole and job.status is JobStatus.COMPLETED
            data = await results.get(connection, tenant, job_id) if with_text else None
        transcript = None if data is None else await asyncio.to_thread(self._codec.unpack, job_id, data)
        return view_of(job, self._clock(), ahead, transcript)

    async def completed(self, tenant: str, job_id: str) -> JobView:
        """One with its transcript.

        Raises:
            NotFound: there is no such transcription, or its text was erased.
            Conflict: it is not completed.
        """
        view = await self.show(tenant, job_id)
        if view.transcript is not None:
            return view
        if view.job.status is JobStatus.COMPLETED:
            raise NotFound("the text of this transcription was erased")
        raise Conflict(f"this transcription is {view.job.status}; only a completed one has a result")

    async def transcript(self, tenant: str, job_id: str) -> Transcript:
        """
        Raises: as `completed` does.
        """
        view = await self.completed(tenant, job_id)
        assert view.transcript is not None
        return view.transcript

    async def list(
        self,
        tenant: str,
        wanted: JobFilter = JobFilter(),  # noqa: B008  # frozen
        *,
        before: str | None = None,
        limit: int = 20,
    ) -> Sequence[JobView]:
        """The newest first, at most `limit` (up to 101) of those made before the one with id `before`."""
        async with self._database.reading() as connection:
            found = await rows.newest(
                connection, tenant, wanted, before=before, limit=min(limit, _MOST_LISTED)
            )
        return [view_of(job, self._clock()) for job in found]

    async def search(
        self, tenant: str, query: str, *, before: str | None = None, limit: int = 20
    ) -> Sequence[Found]:
        """Completed transcriptions whose text has every word of the query, what was finished last first. A
        word that ends in * stands for all that begin so."""
        words = query.split()
        async with self._database.reading() as connection:
            hits = await search.search(
                connection, tenant, words, before=before, limit=min(limit, _MOST_LISTED)
            )
            jobs = await rows.by_ids(connection, tenant, [hit.transcription_id for hit in hits])
        now = self._clock()
        return [
            Found(view_of(jobs[hit.transcription_id], now), hit.excerpt)
            for hit in hits
            if hit.transcription_id in jobs
        ]

    async def cancel(self, tenant: str, job_id: str) -> Job:
        """It is not begun, or stops within seconds.

        Raises:
            NotFound, Unavailable
            Conflict: it is over.
        """
        async with self._database.transaction() as connection:
            job = await self._get(connection, tenant, job_id, lock=True)
            if job.status.is_final:
                raise Conflict(f"this transcription is {job.status} already")
            if await rows.end_waiting(connection, job, JobStatus.CANCELLED, self._clock()):
                await self._news.status(connection, job, JobStatus.CANCELLED, self._clock())
            else:
                await rows.request_cancel(connection, job_id)
            return await self._get(connection, tenant, job_id)

    async def erase(self, tenant: str, job_id: str) -> None:
        """Stop it where it is not over, and leave nothing of it: row, text, events, and the audio unless
        another transcription of the tenant has the same.

        Raises:
            NotFound, Unavailable
        """
        async with self._database.transaction() as connection:
            job = await self._get(connection, tenant, job_id, lock=True)
            if job.recording_id is not None:
                await recordings.lock(connection, job.recording_id)
            await chunks.forget(connection, job_id)
            await results.forget(connection, job_id, self._clock())
            await rows.forget(connection, job_id)
            if job.recording_id is not None and not await rows.refers_to(connection, job.recording_id):
                await recordings.begin_erasing(connection, job.recording_id)
        await self.remove_erased()

    async def remove_erased(self, limit: int = 100) -> int:
        """Remove the blobs of recordings that nobody refers to any more; how many it did."""
        async with self._database.reading() as connection:
            gone = await recordings.being_erased(connection, limit)
        for recording in gone:
            await self._blobs.delete(recording.blob_key)
            async with self._database.transaction() as connection:
                await recordings.forget(connection, recording.id)
        return len(gone)

    async def retry(self, tenant: str, job_id: str) -> Job:
        """A failed or cancelled one is worked on again.

        Raises:
            NotFound, Unavailable
            Conflict: it is of another status, or its audio was erased.
        """
        async with self._database.transaction() as connection:
            job = await self._get(connection, tenant, job_id, lock=True)
            if not await rows.queue_again(connection, job_id, self._clock()):
                why = "its audio was erased" if job.audio_erased_at is not None else f"it is {job.status}"
                raise Conflict(f"this transcription cannot be tried again: {why}")
            await self._news.status(connection, job, JobStatus.QUEUED, self._clock())
            job = await self._get(connection, tenant, job_id)
        await self._queue.offer([task_of(job)])
        return job

    async def events(
        self, tenant: str, job_id: str, *, after: int = 0
    ) -> AsyncGenerator[Event | JobView, None]:
        """What happened after the event with seq `after`, then what happens, until the job is over. Between
        the events stand views of its progress, where that changed.

        Raises:
            NotFound, Unavailable
        """
        shown: JobView | None = None
        while True:
            view = await self.show(tenant, job_id, whole=False)  # before its events: it may end between
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

    async def _get(self, connection: Any, tenant: str, job_id: str, *, lock: bool = False) -> Job:
        job = await rows.get(connection, tenant, job_id, lock=lock)
        if job is None:
            raise NotFound("there is no such transcription")
        return job


async def _digest(source: LocalSource) -> bytes:
    if isinstance(source, (AudioBytes, AudioFile)):
        return source.sha256
    return await asyncio.to_thread(file_digest, source)


def task_of(job: Job) -> Task:
    """How the queue is told of a job."""
    return Task(TaskKind.TRANSCRIPTION, job.id, lane_of(job.rank), priority=3 * int(job.rank))


def lane_of(rank: Rank) -> Lane:
    return Lane.INTERACTIVE if rank is Rank.HIGH else Lane.BULK


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
        if job.status is JobStatus.RUNNING and job.speed:
            since = now - job.progress_at if job.progress_at is not None else 0.0
            left = max((job.duration_s - job.done_s) / job.speed - since, 0.0)
    return JobView(job, round(percent, 1), left, queue_position, transcript)
