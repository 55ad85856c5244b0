"""Finished transcripts, and the search in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db import search_index
from voiceforge.infra.db.records import Job
from voiceforge.infra.db.tables import results as table


@dataclass(frozen=True, slots=True)
class Hit:
    """excerpt: the text around what was found, which stands between « and »."""

    transcription_id: str
    excerpt: str


async def add(connection: AsyncConnection, job: Job, data: bytes, spoken: str, now: float) -> None:
    await connection.execute(
        insert(table).values(
            transcription_id=job.id, tenant=job.tenant, data=data, text=spoken, created_at=now
        )
    )


async def get(connection: AsyncConnection, tenant: str, job_id: str) -> bytes | None:
    rows = await connection.execute(
        select(table.c.data).where(table.c.transcription_id == job_id, table.c.tenant == tenant)
    )
    found = rows.scalar()
    return None if found is None else bytes(found)


async def forget(connection: AsyncConnection, job_id: str, now: float) -> None:
    """now: when; the search index is then to be cleared of its words, by whoever looks after that."""
    gone = await connection.execute(delete(table).where(table.c.transcription_id == job_id))
    if gone.rowcount:
        await search_index.note_erased(connection, now)


async def search(
    connection: AsyncConnection, tenant: str, words: Sequence[str], *, before: str | None, limit: int
) -> list[Hit]:
    """Transcripts that hold all these words, the newest first.

    Args:
        words: without case; a last one that ends in * stands for all that begin so.
        before: only transcriptions made before the one with this id.
    """
    words = [word for word in words if any(map(str.isalnum, word))]  # what else is in texts is in no index
    if not words:
        return []
    if connection.dialect.name == "sqlite":
        return await _search_sqlite(connection, tenant, words, before, limit)
    return await _search_postgresql(connection, tenant, words, before, limit)


async def _search_sqlite(
    connection: AsyncConnection, tenant: str, words: Sequence[str], before: str | None, limit: int
) -> list[Hit]:
    quoted = [
        f'"{word[:-1]}"*' if word.endswith("*") else f'"{word}"'
        for word in (w.replace('"', "") for w in words)
    ]
    rows = await connection.execute(
        text(
            "SELECT r.transcription_id, snippet(result_texts, 0, '«', '»', '…', 24)"
            " FROM result_texts JOIN results r ON r.seq = result_texts.rowid"
            " WHERE result_texts MATCH :query AND r.tenant = :tenant"
            " AND (:before IS NULL OR r.transcription_id < :before)"
            " ORDER BY r.transcription_id DESC LIMIT :limit"
        ),
        {"query": " ".join(quoted), "tenant": tenant, "before": before, "limit": limit},
    )
    return [Hit(*row) for row in rows]


async def _search_postgresql(
    connection: AsyncConnection, tenant: str, words: Sequence[str], before: str | None, limit: int
) -> list[Hit]:
    # Quoted, a word cannot be read as an operator.
    terms = [
        "'"
        + word.rstrip("*").replace("\\", " ").replace("'", "''")
        + "'"
        + (":*" if word.endswith("*") else "")
        for word in words
    ]
    query = func.to_tsquery("simple", " & ".join(terms))
    excerpt = func.ts_headline(
        "simple", table.c.text, query, "StartSel=«, StopSel=», MaxWords=24, MinWords=12, MaxFragments=1"
    )
    statement = select(table.c.transcription_id, excerpt).where(
        table.c.tenant == tenant, func.to_tsvector(text("'simple'"), table.c.text).op("@@")(query)
    )
    if before is not None:
        statement = statement.where(table.c.transcription_id < before)
    rows = await connection.execute(statement.order_by(table.c.transcription_id.desc()).limit(limit))
    return [Hit(*row) for row in rows]
