"""Everything of one person, or of a tenant, as a tar file that is written while it is read.

Rows are JSON lines, transcripts in their native form; audio comes where it is wished. Neither secrets nor
hashes of them are in it.
"""

from __future__ import annotations

import asyncio
import tarfile
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from voiceforge.infra.blobs.base import Blobs
from voiceforge.infra.db import personal, results
from voiceforge.infra.db import recordings as recording_rows
from voiceforge.infra.db.database import Database
from voiceforge.services.result_codec import ResultCodec, UnreadableResult
from voiceforge.speech.formats.json import native_document

_ROWS_AT_ONCE = 500
_BLOCK_BYTES = 512
_END = bytes(2 * _BLOCK_BYTES)


async def tar_of(
    database: Database, blobs: Blobs, tenant: str, user_id: str | None, *, audio: bool
) -> AsyncGenerator[bytes, None]:
    """
    Args:
        user_id: None: all of the tenant.

    Raises:
        Unavailable, BlobMissing: what came so far is no whole file.
    """
    codec = ResultCodec()
    told: set[str] = set()
    for table in personal.exported_tables(user_id):
        number = 0
        while True:
            async with database.reading() as connection:
                rows = await personal.some_rows(
                    connection, table, tenant, user_id, skip=number * _ROWS_AT_ONCE, limit=_ROWS_AT_ONCE
                )
            if not rows:
                break
            number += 1
            yield _member(f"{table}/{number:06d}.jsonl", b"".join(to_json(row) + b"\n" for row in rows))
            if table == "transcriptions":
                async for piece in _transcripts(database, codec, tenant, rows):
                    yield piece
                if audio:
                    async for piece in _audio(database, blobs, tenant, rows, told):
                        yield piece
    yield _END


async def _transcripts(
    database: Database, codec: ResultCodec, tenant: str, jobs: Sequence[Mapping[str, Any]]
) -> AsyncGenerator[bytes, None]:
    for job in jobs:
        async with database.reading() as connection:
            data = await results.get(connection, tenant, job["id"])
        if data is None:
            continue
        try:
            transcript = await asyncio.to_thread(codec.unpack, job["id"], data)
        except UnreadableResult:  # of another program; its row tells that it was there
            continue
        yield _member(f"transcripts/{job['id']}.json", to_json(native_document(transcript)))


async def _audio(
    database: Database, blobs: Blobs, tenant: str, jobs: Sequence[Mapping[str, Any]], told: set[str]
) -> AsyncGenerator[bytes, None]:
    """Each recording once."""
    for job in jobs:
        recording_id = job["recording_id"]
        if recording_id is None or recording_id in told:
            continue
        told.add(recording_id)
        async with database.reading() as connection:
            recording = await recording_rows.get(connection, tenant, recording_id)
        info = None if recording is None else await blobs.info(recording.blob_key)
        if recording is None or info is None:
            continue
        yield _header(f"audio/{recording_id}", info.size_bytes)
        async for piece in blobs.read(recording.blob_key):
            yield piece
        yield bytes(-info.size_bytes % _BLOCK_BYTES)


def _member(name: str, content: bytes) -> bytes:
    return _header(name, len(content)) + content + bytes(-len(content) % _BLOCK_BYTES)


def _header(name: str, size_bytes: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size_bytes, 0o600, int(time.time())
    return member.tobuf(tarfile.PAX_FORMAT)
