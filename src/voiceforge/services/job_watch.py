"""Watching a job: what happens to it, with the text that came with it.

Events hold nothing that was spoken: the text is read from the chunk an event tells of or, once the job is
completed and its chunks are gone, from the result.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from voiceforge.infra.db import chunks, events
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.records import Event, JobStatus
from voiceforge.services.access import Caller, trusted
from voiceforge.services.chunk_codec import ChunkCodec, UnreadableChunk
from voiceforge.services.job_view import JobView
from voiceforge.services.jobs import Jobs
from voiceforge.speech.transcript.types import Segment

_CHUNK = "transcription.chunk"
_COMPLETED = f"transcription.{JobStatus.COMPLETED}"


@dataclass(frozen=True, slots=True)
class Told:
    """An event and the segments that are new with it; None where such an event brings none. stored: False
    where it is made up for this watcher, who cannot go on behind it."""

    event: Event
    segments: Sequence[Segment] | None = None
    stored: bool = True


def _all_anew(completed: Event, segments: Sequence[Segment]) -> Told:
    end = completed.data.get("duration") or (segments[-1].end if segments else 0.0)
    data = {"id": completed.data["id"], "chunk": 0, "start": 0.0, "end": end}
    return Told(replace(completed, type=_CHUNK, data=data), segments, stored=False)


class JobWatch:
    def __init__(self, database: Database, jobs: Jobs) -> None:
        self._database = database
        self._jobs = jobs
        self._codec = ChunkCodec()

    async def events(
        self, caller: Caller, job_id: str, *, after: int = 0
    ) -> AsyncGenerator[Told | JobView, None]:
        """As `Jobs.events`. The segments of all chunks and of the final event make up the result; a chunk
        takes the place of an earlier one of its number and of all that came after that. Where the chunks that
        a watcher missed are not told of any more, a first chunk with everything takes the place of them all.

        Raises:
            NotFound, Unavailable
        """
        noted = False
        async with aclosing(self._told(caller, job_id, after)) as told:
            async for item in told:
                if not noted and isinstance(item, Told) and item.segments:
                    noted = True
                    await self._jobs.note_reading(caller, job_id)
                yield item

    async def _told(self, caller: Caller, job_id: str, after: int) -> AsyncGenerator[Told | JobView, None]:
        finished: Sequence[Segment] | None = None
        seen = after
        async with aclosing(self._jobs.events(caller, job_id, after=after)) as news:
            async for item in news:
                if isinstance(item, JobView):
                    yield item
                elif item.type == _CHUNK:
                    segments = None if finished is not None else await self._of_chunk(item)
                    if segments is None:
                        finished = finished if finished is not None else await self._of_result(item)
                        start, end = float(item.data["start"]), float(item.data["end"])
                        segments = [segment for segment in finished if start <= segment.start < end]
                    yield Told(item, segments)
                elif item.type == _COMPLETED:
                    finished = finished if finished is not None else await self._of_result(item)
                    told_s = await self._told_s(item)
                    if told_s is None and seen and not await self._is_there(item, seen):
                        yield _all_anew(item, finished)
                        finished = ()
                    yield Told(item, [segment for segment in finished if segment.start >= (told_s or 0.0)])
                else:
                    yield Told(item)
                if not isinstance(item, JobView):
                    seen = item.seq

    async def _of_chunk(self, event: Event) -> Sequence[Segment] | None:
        """None: it is not there any more."""
        job_id = str(event.transcription_id)
        async with self._database.reading() as connection:
            data = await chunks.get(connection, event.tenant, job_id, int(event.data["chunk"]))
        if data is None:
            return None
        try:
            return (await asyncio.to_thread(self._codec.unpack, job_id, data)).segments
        except UnreadableChunk:  # of another program: it is done again, and told again
            return ()

    async def _of_result(self, event: Event) -> Sequence[Segment]:
        view = await self._jobs.show(trusted(event.tenant), str(event.transcription_id))
        return view.transcript.segments if view.transcript is not None else ()

    async def _is_there(self, event: Event, seq: int) -> bool:
        """Whether one that was seen before this one is stored still."""
        async with self._database.reading() as connection:
            return await events.is_there(connection, event.tenant, str(event.transcription_id), seq)

    async def _told_s(self, event: Event) -> float | None:
        """Up to where chunks have brought the text before this event; None: there are no events of chunks."""
        async with self._database.reading() as connection:
            last = await events.last(
                connection, event.tenant, str(event.transcription_id), _CHUNK, before=event.seq
            )
        return float(last.data["end"]) if last is not None else None
