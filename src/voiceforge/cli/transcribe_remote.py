"""`voiceforge transcribe --server`: a server does the work, and keeps nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from voiceforge.cli.jobs import why_not
from voiceforge.cli.progress import Bar
from voiceforge.cli.server_client import ServerClient
from voiceforge.cli.transcribe_run import JSON_TYPE, Made, Order, doubts_about
from voiceforge.errors import VoiceForgeError
from voiceforge.services.recordings import Source, UrlSource

_LEAVING_S = 5.0


class RemoteMaker:
    """Args:
    fields: options of the API, as the command line gives them.
    """

    def __init__(self, client: ServerClient, fields: Mapping[str, Any]) -> None:
        self._client = client
        self._fields = fields

    async def prepare(self, order: Order) -> None:
        await self._client.list(limit=1)  # a server that is not there is one error, not one per input

    async def make(self, order: Order, source: Source, bar: Bar) -> Made:
        assert isinstance(source, (Path, UrlSource))
        place = source.url if isinstance(source, UrlSource) else source
        job_id = (await self._client.submit(place, {**self._fields, "format": order.format}))["id"]
        try:
            async for event in self._client.watch(job_id):
                if event.type == "progress" and (duration := event.data["duration"]):
                    bar.update(event.data["percent"] * duration / 100, duration)
            return await self._made(order, job_id)
        finally:
            # Shielded: who interrupts the command wants it stopped there too.
            with contextlib.suppress(VoiceForgeError, TimeoutError):
                await asyncio.shield(asyncio.wait_for(self._client.erase(job_id), _LEAVING_S))

    async def _made(self, order: Order, job_id: str) -> Made:
        job = await self._client.show(job_id)
        if job["status"] != "completed":
            raise VoiceForgeError(why_not(job))
        document = await self._client.result(job_id, order.format)
        return Made(
            document.body,
            document.media_type == JSON_TYPE,
            job["duration"],
            job["processing_s"],
            doubts_about(
                [warning["message"] for warning in job["warnings"]],
                [(gap["start"], gap["end"]) for gap in job["coverage"]["gaps"]],
            ),
        )
