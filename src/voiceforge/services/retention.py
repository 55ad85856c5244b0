"""What is not to be kept goes: texts and audio whose time is over, and what nobody refers to.

Everything is done in small transactions that may be repeated, so that one that broke off is finished by the
next sweep.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.blobs.base import BlobInfo, Blobs
from voiceforge.infra.db import chunks, recordings, results, search_index
from voiceforge.infra.db import transcriptions as rows
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.records import Job
from voiceforge.services.chores import Chore
from voiceforge.services.jobs import Jobs
from voiceforge.services.recordings import AUDIO_PREFIX
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)

_ERASE_EVERY_S = 20.0
_CLEAR_EVERY_S = 600.0
"""The whole index may have to be written anew."""
_COLLECT_EVERY_S = 6 * 3600.0
_LEASE_S = 600.0
_AT_ONCE = 50
_LOOKED_AT_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Erased:
    """How many transcriptions lost what."""

    texts: int = 0
    recordings: int = 0


@dataclass(frozen=True, slots=True)
class Orphans:
    """How many were removed: blobs no row knows, recordings no transcription refers to."""

    blobs: int = 0
    recordings: int = 0


class RetentionSweep:
    """Args:
    orphan_age_s: younger things may belong to work that has not written its row yet.
    clock: Unix seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        jobs: Jobs,
        orphan_age_s: float = 86_400.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._jobs = jobs
        self._orphan_age_s = orphan_age_s
        self._clock = clock

    def chores(self) -> tuple[Chore, ...]:
        """All of it, as work that comes round; to be done by one process at a time."""
        return (
            Chore("erase_due", _ERASE_EVERY_S, self.erase_due, lease_s=_LEASE_S),
            Chore("clear_search_index", _CLEAR_EVERY_S, self.clear_search_index, lease_s=_LEASE_S),
            Chore("collect_orphans", _COLLECT_EVERY_S, self.collect_orphans, lease_s=_LEASE_S),
        )

    async def erase_due(self) -> Erased:
        """Erase texts and audio whose time is over.

        Raises:
            Unavailable: the rest is for the next time.
        """
        texts = await self._each_due(rows.text_due, self._erase_text)
        audio = await self._each_due(rows.audio_due, self._erase_audio)
        while await self._jobs.remove_erased():
            pass
        if texts or audio:
            _log.info("erased by policy", texts=texts, recordings=audio)
        return Erased(texts, audio)

    async def _each_due(
        self,
        due: Callable[[AsyncConnection, float, int], Awaitable[list[Job]]],
        erase: Callable[[AsyncConnection, Job, float], Awaitable[None]],
    ) -> int:
        """Some in each transaction, until there are none."""
        count = 0
        while True:
            now = self._clock()
            async with self._database.transaction() as connection:
                jobs = await due(connection, now, _AT_ONCE)
                for job in sorted(jobs, key=lambda job: job.recording_id or ""):
                    await erase(connection, job, now)
            if not jobs:
                return count
            count += len(jobs)

    async def _erase_text(self, connection: AsyncConnection, job: Job, now: float) -> None:
        await results.forget(connection, job.id, now)
        await chunks.forget(connection, job.id)
        await rows.note_text_erased(connection, job.id, now)

    async def _erase_audio(self, connection: AsyncConnection, job: Job, now: float) -> None:
        """Only its own claim to it, where another transcription has the same."""
        if job.recording_id is not None:
            await recordings.lock(connection, job.recording_id)
        await rows.note_audio_erased(connection, job.id, now)
        if job.recording_id is not None and not await rows.refers_to(connection, job.recording_id):
            await recordings.begin_erasing(connection, job.recording_id)

    async def clear_search_index(self) -> bool:
        """Rid SQLite's files of words that were erased; False: there were none.

        Raises:
            Unavailable
        """
        async with self._database.reading() as connection:
            since = await search_index.noted(connection)
        if since is None:
            return False
        async with self._database.transaction() as connection:
            further = await search_index.begin_merging(connection)
        while further:
            async with self._database.transaction() as connection:
                further = await search_index.merge_further(connection)
        if await self._database.clear_log():
            async with self._database.transaction() as connection:
                await search_index.note_cleared(connection, since)
        return True

    async def collect_orphans(self) -> Orphans:
        """Remove what is old and belongs to nothing.

        Raises:
            Unavailable
        """
        found = Orphans(recordings=await self._unused_recordings(), blobs=await self._unknown_blobs())
        if found != Orphans():
            _log.warning("orphans removed", blobs=found.blobs, recordings=found.recordings)
        return found

    async def _unused_recordings(self) -> int:
        count, after = 0, ""
        before = self._clock() - self._orphan_age_s
        while True:
            async with self._database.reading() as connection:
                unused, last = await recordings.unused(
                    connection, after=after, before=before, limit=_LOOKED_AT_AT_ONCE
                )
            for recording_id in unused:
                async with self._database.transaction() as connection:
                    await recordings.lock(connection, recording_id)
                    if not await rows.refers_to(connection, recording_id):
                        await recordings.begin_erasing(connection, recording_id)
                        count += 1
            if last is None:
                break
            after = last
        while await self._jobs.remove_erased():
            pass
        return count

    async def _unknown_blobs(self) -> int:
        count = 0
        before = self._clock() - self._orphan_age_s
        old: list[BlobInfo] = []
        async with aclosing(self._blobs.list(AUDIO_PREFIX)) as found:
            async for info in found:
                if info.stored_at < before:
                    old.append(info)
                if len(old) == _LOOKED_AT_AT_ONCE:
                    count += await self._remove_unknown(old)
                    old = []
        return count + await self._remove_unknown(old)

    async def _remove_unknown(self, blobs: Sequence[BlobInfo]) -> int:
        ids = [info.key.rpartition("/")[2] for info in blobs]
        async with self._database.reading() as connection:
            known = await recordings.known_keys(connection, ids)
        unknown = [info.key for info in blobs if info.key not in known]
        for key in unknown:
            await self._blobs.delete(key)
        return len(unknown)
