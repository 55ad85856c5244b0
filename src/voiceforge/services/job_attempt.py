"""One worker's work on one job: kept by heartbeats, saved chunk by chunk, ended exactly once.

Whatever kills the process leaves the job to the next that takes it, which goes on after the last saved chunk.
While the database is away the work goes on, and what is to be written waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from voiceforge.errors import (
    Cancelled,
    EngineCrashed,
    InvalidRequest,
    Overloaded,
    ShuttingDown,
    StorageFull,
    Unavailable,
    VoiceForgeError,
)
from voiceforge.infra.blobs.base import Blobs
from voiceforge.infra.db import chunks, leases, recordings, results, usage
from voiceforge.infra.db import transcriptions as rows
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.records import Claim, Job, JobError, JobProgress, JobStatus, Rank, Recording
from voiceforge.infra.db.usage import Booking
from voiceforge.infra.fetch.base import Fetcher
from voiceforge.services.access import trusted
from voiceforge.services.chunk_codec import ChunkCodec, UnreadableChunk
from voiceforge.services.job_news import JobNews
from voiceforge.services.job_pace import Pace
from voiceforge.services.job_rules import JobObserver, RunRules
from voiceforge.services.recordings import AUDIO_PREFIX, AudioFile, file_digest
from voiceforge.services.result_cache import CacheUse
from voiceforge.services.result_codec import ResultCodec
from voiceforge.services.transcriptions import TranscribeRequest, Transcriptions
from voiceforge.speech.engines.tickets import Priority
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.pipeline.checkpoints import Chunk, ChunkDone
from voiceforge.speech.transcript.events import Finished, Progress
from voiceforge.speech.transcript.types import Transcript
from voiceforge.telemetry.logger import Logger

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_log = Logger(__name__)

_PATIENCE_S = (0.2, 5.0)
"""Between two tries to write to a database that is away: the first, and the longest."""


class _Lost(Exception):
    """The job is not ours any more."""


class _Unwanted(Exception):
    """Somebody asked to stop it while the last of it was done."""


@dataclass(frozen=True, slots=True)
class Workbench:
    """What an attempt works with.

    Args:
        fetcher: makes the fetcher of jobs that name a URL; None where that is switched off.
        clock: Unix seconds.
    """

    database: Database
    blobs: Blobs
    transcriptions: Transcriptions
    fetcher: Callable[[], Fetcher] | None
    news: JobNews
    temp_dir: Path
    rules: RunRules
    observer: JobObserver | None
    clock: Callable[[], float]
    options: TypeAdapter[TranscribeOptions]
    result_codec: ResultCodec
    chunk_codec: ChunkCodec


class Attempt:
    """One worker's work on one job."""

    def __init__(self, bench: Workbench, claim: Claim) -> None:
        self._bench = bench
        self._claim = claim
        self._job = claim.job
        self._progress: JobProgress | None = None
        self._wanted = True
        self._ours = True
        self._folder: Path | None = None

    async def run(self) -> None:
        """Ends with the job written as ended or given back, or with it lost to another."""
        _log.info("job begun", job=self._job.id, attempt=self._job.attempts)
        work = asyncio.create_task(self._work())
        watch = asyncio.create_task(self._watch(work))
        try:
            transcript = await work
            await self._complete(transcript)
        except _Lost:
            _log.warning("job lost to another worker", job=self._job.id)
        except _Unwanted:
            await self._stopped()
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():  # type: ignore[union-attr]  # this is a task
                work.cancel()  # the process is on its way out
                await asyncio.gather(work, return_exceptions=True)
                await self._give_back(self._bench.clock(), counted=False, error=None)
                raise
            await self._stopped()
        except VoiceForgeError as error:
            await self._failed(error)
        except Exception as error:
            _log.exception("job failed", job=self._job.id)
            await self._failed(_Unforeseen("the transcription failed; the log has the details"))
            del error
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def _watch(self, work: asyncio.Task[Transcript]) -> None:
        """Keep the lease, write how far it is, and stop the work that is not wanted."""
        rules, renewed = self._bench.rules, time.monotonic()
        while True:
            await asyncio.sleep(rules.look_s)
            try:
                async with self._bench.database.reading() as connection:
                    self._wanted = await leases.still_wanted(connection, self._claim)
                if self._wanted and time.monotonic() - renewed < rules.heartbeat_s:
                    continue
                async with self._bench.database.transaction() as connection:
                    self._ours = await leases.renew(
                        connection,
                        self._claim,
                        self._progress,
                        now=self._bench.clock(),
                        lease_s=rules.lease_s,
                    )
                renewed = time.monotonic()
                self._show_in_use()
            except (Unavailable, StorageFull):
                continue  # the work goes on; what it writes waits
            if not (self._wanted and self._ours):
                work.cancel()
                return

    def _show_in_use(self) -> None:
        """Or whoever removes leftovers would take the folder of a job that lasts for one."""
        if self._folder is not None:
            with contextlib.suppress(FileNotFoundError):  # just ended
                os.utime(self._folder)

    async def _work(self) -> Transcript:
        with tempfile.TemporaryDirectory(dir=self._bench.temp_dir, prefix="job-") as name:
            self._folder = folder = Path(name)
            recording = await self._recording(folder)
            path = self._bench.blobs.at_path(
                recording.blob_key, folder, sha256=bytes.fromhex(recording.sha256)
            )
            async with path as audio:
                source = AudioFile(audio, bytes.fromhex(recording.sha256))
                return await self._transcribe(source)

    async def _recording(self, folder: Path) -> Recording:
        """The audio as we keep it; what stands at a URL is fetched and kept first, once."""
        job = self._job
        if job.recording_id is not None:
            async with self._bench.database.reading() as connection:
                kept = await recordings.get(connection, job.tenant, job.recording_id)
            if kept is None:
                raise InvalidRequest("the audio of this transcription was erased")
            return kept
        if self._bench.fetcher is None or job.url is None:
            raise InvalidRequest("transcribing from a URL is switched off on this server", field="url")
        target = folder / "fetched"
        await self._bench.fetcher().fetch(job.url, target)
        sha256 = await asyncio.to_thread(file_digest, target)
        now = self._bench.clock()
        recording_id = new_id("rec", now)
        blob = await self._bench.blobs.put(f"{AUDIO_PREFIX}/{recording_id}", target, sha256=sha256, take=True)
        made = Recording(recording_id, job.tenant, sha256.hex(), blob.size_bytes, blob.key, now)
        async with self._bench.database.transaction() as connection:
            await self._hold(connection)
            await recordings.add(connection, made)
            await rows.set_recording(connection, job.id, recording_id)
        return made

    async def _transcribe(self, source: AudioFile) -> Transcript:
        job, service = self._job, self._bench.transcriptions
        request = TranscribeRequest(
            source=source,
            options=self._bench.options.validate_python(job.options),
            model=job.model,
            priority=_priority(job),
            caller=trusted(job.tenant),
            # What is to go by a certain time must not stay there as an earlier result.
            cache=CacheUse.NORMAL if job.retention.text_s is None else CacheUse.NONE,
        )
        done = await self._saved()
        pace = Pace()
        async with contextlib.aclosing(service.work(request, done=done)) as news:
            async for event in news:
                match event:
                    case Progress():
                        left_s = pace.left_s(time.monotonic(), event.work_done, event.work_left)
                        ends_at = None if left_s is None else self._bench.clock() + left_s
                        self._progress = JobProgress(event.processed_s, event.duration_s, ends_at)
                    case ChunkDone():
                        await self._insist(lambda chunk=event.chunk: self._save(chunk))  # type: ignore[misc]
                    case Finished():
                        return event.transcript
        raise Cancelled("the transcription was cancelled")

    async def _saved(self) -> list[Chunk]:
        """What earlier attempts finished."""
        job = self._job
        async with self._bench.database.reading() as connection:
            saved = await chunks.of(connection, job.tenant, job.id)
        done = []
        for data in saved:
            try:
                done.append(self._bench.chunk_codec.unpack(job.id, data))
            except UnreadableChunk:  # of another program: from here on it is done again
                break
        return done

    async def _save(self, chunk: Chunk) -> None:
        data = self._bench.chunk_codec.pack(self._job.id, chunk)
        now = self._bench.clock()
        async with self._bench.database.transaction() as connection:
            await self._hold(connection, moved_on=True)
            await chunks.put(connection, self._job, chunk.index, data, now)
            await self._bench.news.chunk(connection, self._job, chunk.index, chunk.start, chunk.end, now)

    async def _hold(self, connection: AsyncConnection, *, moved_on: bool = False) -> None:
        """The first statement of every transaction of ours: it renews the lease, or ends the attempt."""
        rules = self._bench.rules
        held = await leases.renew(
            connection,
            self._claim,
            self._progress,
            now=self._bench.clock(),
            lease_s=rules.lease_s,
            moved_on=moved_on,
        )
        if not held:
            self._ours = False
            raise _Lost

    async def _complete(self, transcript: Transcript) -> None:
        job = self._job
        data = await asyncio.to_thread(self._bench.result_codec.pack, job.id, transcript)

        async def write() -> None:
            now = self._bench.clock()
            async with self._bench.database.transaction() as connection:
                await self._hold(connection)
                if not await leases.still_wanted(connection, self._claim):
                    raise _Unwanted
                await self._end(connection, JobStatus.COMPLETED, now, done_s=transcript.duration)
                await results.add(connection, job, data, transcript.text, now)
                await usage.add(connection, _booking(job, transcript, now))
                await chunks.forget(connection, job.id)

        await self._insist(write)
        self._ended(JobStatus.COMPLETED)
        _log.info("job completed", job=job.id, audio_s=round(transcript.duration, 1))

    async def _failed(self, error: VoiceForgeError) -> None:
        """Once more later, or never."""
        job, rules = self._job, self._bench.rules
        told = JobError(error.kind, error.code, error.message, error.retryable)
        # What all jobs wait for is not this one's fault.
        counted = not isinstance(error, (Unavailable, Overloaded, StorageFull)) or isinstance(
            error, EngineCrashed
        )
        if isinstance(error, ShuttingDown):
            await self._give_back(self._bench.clock(), counted=False, error=None)
        elif error.retryable and (job.attempts < rules.max_attempts or not counted):
            wait_s = max(rules.wait_s(job.attempts), error.retry_after_s or 0.0)
            _log.warning("job to be tried again", job=job.id, problem=error.code, in_s=round(wait_s, 1))
            await self._give_back(self._bench.clock() + wait_s, counted=counted, error=told)
            if self._bench.observer is not None:
                self._bench.observer.job_retried(error.code)
        else:
            _log.warning("job failed", job=job.id, problem=error.code, attempts=job.attempts)

            async def write() -> None:
                async with self._bench.database.transaction() as connection:
                    await self._end(connection, JobStatus.FAILED, self._bench.clock(), error=told)

            with contextlib.suppress(_Lost):
                await self._insist(write)
                self._ended(JobStatus.FAILED, error.code)

    def _ended(self, status: JobStatus, code: str | None = None) -> None:
        if self._bench.observer is not None:
            self._bench.observer.job_ended(
                status, seconds=self._bench.clock() - self._job.created_at, code=code
            )

    async def _stopped(self) -> None:
        if not self._ours:
            _log.warning("job lost to another worker", job=self._job.id)
            return

        async def write() -> None:
            async with self._bench.database.transaction() as connection:
                await self._end(connection, JobStatus.CANCELLED, self._bench.clock())
                await chunks.forget(connection, self._job.id)

        with contextlib.suppress(_Lost):
            await self._insist(write)
            self._ended(JobStatus.CANCELLED)
        _log.info("job cancelled", job=self._job.id)

    async def _end(
        self,
        connection: AsyncConnection,
        status: JobStatus,
        now: float,
        *,
        error: JobError | None = None,
        done_s: float | None = None,
    ) -> None:
        job = self._job
        ended = await leases.end(
            connection,
            self._claim,
            status,
            now=now,
            error=error,
            done_s=done_s,
        )
        if not ended:
            raise _Lost
        await self._bench.news.status(connection, job, status, now, error, done_s)

    async def _give_back(self, available_at: float, *, counted: bool, error: JobError | None) -> None:
        try:
            async with self._bench.database.transaction() as connection:
                await leases.give_back(
                    connection, self._claim, available_at=available_at, counted=counted, error=error
                )
        except (Unavailable, StorageFull):
            pass  # its lease will end

    async def _insist(self, write: Callable[[], Awaitable[None]]) -> None:
        """Until the database takes it. A commit whose answer was lost shows as a lost lease the next time."""
        pause_s, longest_s = _PATIENCE_S
        told = False
        while True:
            try:
                return await write()
            except (Unavailable, StorageFull) as error:
                if not told:
                    _log.warning("job waits for the database", job=self._job.id, problem=error.code)
                told = True
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, longest_s)


class _Unforeseen(VoiceForgeError):
    pass


def _booking(job: Job, transcript: Transcript, now: float) -> list[Booking]:
    """None where it is on nobody's account."""
    if job.door is None:
        return []
    return [
        Booking(
            id=job.id,
            tenant=job.tenant,
            at=now,
            key_id=job.key_id,
            user_id=job.user_id,
            model=transcript.model.id,
            door=job.door,
            work_class=_priority(job).name.lower(),
            audio_s=transcript.duration,
            latency_s=max(0.0, now - job.created_at),
            cached=transcript.cached_at is not None,
        )
    ]


def _priority(job: Job) -> Priority:
    return Priority.INTERACTIVE if job.rank is Rank.HIGH else Priority.BULK
