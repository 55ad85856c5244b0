"""Takes jobs with a lease, and works on them to their end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from voiceforge.infra.blobs.base import Blobs
from voiceforge.infra.db import leases
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.records import Rank
from voiceforge.infra.fetch.base import Fetcher
from voiceforge.services.chunk_codec import ChunkCodec
from voiceforge.services.job_attempt import Attempt, Workbench
from voiceforge.services.job_news import JobNews
from voiceforge.services.job_rules import JobObserver, RunRules
from voiceforge.services.result_codec import ResultCodec
from voiceforge.services.transcriptions import Transcriptions
from voiceforge.speech.options import TranscribeOptions


class JobRunner:
    """Args:
    fetcher: makes the fetcher of jobs that name a URL; None where that is switched off.
    worker: who we are, for people who look.
    clock: Unix seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        transcriptions: Transcriptions,
        fetcher: Callable[[], Fetcher] | None,
        news: JobNews,
        temp_dir: Path,
        worker: str,
        rules: RunRules = RunRules(),  # noqa: B008  # frozen
        observer: JobObserver | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bench = Workbench(
            database=database,
            blobs=blobs,
            transcriptions=transcriptions,
            fetcher=fetcher,
            news=news,
            temp_dir=temp_dir,
            rules=rules,
            observer=observer,
            clock=clock,
            options=TypeAdapter(TranscribeOptions),
            result_codec=ResultCodec(),
            chunk_codec=ChunkCodec(),
        )
        self._worker = worker

    async def run_next(self, ranks: Sequence[Rank]) -> bool:
        """Take the next job and work on it to its end; False: there was none.

        Raises:
            Unavailable: the database does not answer.
        """
        async with self._bench.database.transaction() as connection:
            claim = await leases.claim_next(
                connection,
                ranks,
                worker=self._worker,
                now=self._bench.clock(),
                lease_s=self._bench.rules.lease_s,
            )
        if claim is None:
            return False
        await Attempt(self._bench, claim).run()
        return True

    async def run(self, job_id: str) -> bool:
        """Likewise this one; False: it does not wait, or not any more.

        Raises:
            Unavailable
        """
        async with self._bench.database.transaction() as connection:
            claim = await leases.claim(
                connection,
                job_id,
                worker=self._worker,
                now=self._bench.clock(),
                lease_s=self._bench.rules.lease_s,
            )
        if claim is None:
            return False
        await Attempt(self._bench, claim).run()
        return True
