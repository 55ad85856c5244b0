"""Accepting work: checked, its audio stored, written down in one committed transaction, and the workers told.

Before that transaction nobody refers to the audio, after it nothing can be lost.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter
from pydantic_core import to_json

from voiceforge.errors import Conflict, InvalidRequest, QuotaExceeded, RateLimited
from voiceforge.infra.blobs.base import Blobs
from voiceforge.infra.db import recordings
from voiceforge.infra.db import transcriptions as rows
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.records import Job, JobStatus, NewJob, Rank, Recording, Retention
from voiceforge.infra.jobqueue.base import JobQueue
from voiceforge.services.access import OWNER, Caller
from voiceforge.services.job_news import JobNews
from voiceforge.services.job_room_left import RoomLeft
from voiceforge.services.job_tasks import task_of
from voiceforge.services.recordings import (
    AUDIO_PREFIX,
    AudioBytes,
    AudioFile,
    LocalSource,
    Source,
    UrlSource,
    content_of,
    file_digest,
)
from voiceforge.services.transcriptions import Transcriptions
from voiceforge.speech.options import TranscribeOptions
from voiceforge.telemetry.logger import Logger

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

# What callers need of the room below, which surfaces do not see.
__all__ = ["JobIntake", "JobRequest", "Prepared", "Rank", "RecordingGone", "Retention", "Submitted"]

_log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What is to be transcribed, and how. metadata: the caller's own, given back as it came. callback_shape:
    of a callback in a surface's own words: its `surface`, and what that will need of what was `asked`.
    id: None: a new one. door: the surface it came by; None: it is on nobody's account."""

    source: Source
    options: TranscribeOptions
    model: str | None = None
    caller: Caller = OWNER
    rank: Rank = Rank.NORMAL
    metadata: Mapping[str, Any] = field(default_factory=dict)
    filename: str | None = None
    callback_url: str | None = None
    callback_shape: Mapping[str, Any] | None = None
    idempotency_key: str | None = None
    retention: Retention | None = None
    batch_id: str | None = None
    id: str | None = None
    door: str | None = None


@dataclass(frozen=True, slots=True)
class Submitted:
    """created: False where an earlier request with the same idempotency key had made it."""

    job: Job
    created: bool


@dataclass(frozen=True, slots=True)
class Prepared:
    """Checked, not accepted yet. digest: of everything that was asked. source, sha256: None where the audio
    is to be fetched."""

    new: NewJob
    digest: str
    source: LocalSource | None
    sha256: bytes | None
    caller: Caller = OWNER


class RecordingGone(Exception):
    """Audio that was to be shared is not here any more."""


class JobIntake:
    """Args:
    check_url: raises UrlRefused for a recording's address that we do not fetch from.
    check_callback: raises UrlRefused for an address that we do not call; None: nobody is called.
    retention: of those whose request wishes no shorter one.
    room_left: None: nobody is limited.
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
        room_left: RoomLeft | None = None,
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
        self._room_left = room_left
        self._options = TypeAdapter(TranscribeOptions)

    async def submit(self, request: JobRequest) -> Submitted:
        """Accept the work: once this returns, it will be done.

        Raises:
            ModelNotFound, ModelNotInstalled, UnsupportedOption, UrlRefused
            Conflict: the idempotency key came with another request before.
            Unavailable, StorageFull, RateLimited, QuotaExceeded: nothing was accepted.
        """
        prepared = await self.prepare(request)
        new = prepared.new
        earlier = await self._earlier(new)
        if earlier is not None:
            return Submitted(earlier, created=False)
        await self._look_for_room(prepared)
        submitted = await self._accept(prepared)
        if submitted.created:
            await self.announce([submitted.job])
        return submitted

    async def prepare(self, request: JobRequest) -> Prepared:
        """Check everything that can be known before it is accepted.

        Raises:
            ModelNotFound, ModelNotInstalled, UnsupportedOption, UrlRefused, InvalidRequest
        """
        model = self._transcriptions.check(request.caller, request.model, request.options)
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
            id=request.id or new_id("tr", now),
            tenant=request.caller.tenant,
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
            user_id=request.caller.user_id,
            key_id=request.caller.key_id,
            door=request.door,
        )
        return Prepared(new, digest.hexdigest(), source, sha256, request.caller)

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

    async def _look_for_room(self, prepared: Prepared) -> None:
        """Before the audio is stored for nothing."""
        if self._room_left is None or not self._room_left.limited(prepared.caller):
            return
        tenant, sha256 = prepared.new.tenant, prepared.sha256
        async with self._database.reading() as connection:
            known = sha256 is None or await recordings.with_content(connection, tenant, sha256.hex())
            size_bytes = 0 if known else 1  # more, but that is not known yet
            await self._room_left.check(connection, prepared.caller, size_bytes, holding=False)

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
            except (RateLimited, QuotaExceeded):
                if stored is not None:
                    await self._discard(stored)
                raise
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
            RateLimited, QuotaExceeded: it is more than the caller may have.
        """
        new, same = prepared.new, None
        if prepared.sha256 is not None:
            same = await recordings.with_content(connection, new.tenant, prepared.sha256.hex())
            if same is None and stored is None:
                raise RecordingGone
        if self._room_left is not None:
            size_bytes = stored.size_bytes if stored is not None and same is None else 0
            await self._room_left.check(connection, prepared.caller, size_bytes)
        if prepared.sha256 is not None:
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


async def _digest(source: LocalSource) -> bytes:
    if isinstance(source, (AudioBytes, AudioFile)):
        return source.sha256
    return await asyncio.to_thread(file_digest, source)
