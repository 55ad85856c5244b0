"""The search in finished transcripts: the newest first, in time that hardly grows with their number.

An index over words knows where a word stands, not which of those texts are the newest: of a word that stands
in every text, it would name them all. SQLite's index can be read from its newest end. PostgreSQL's cannot;
there every text has marks in the index beside its words, which say whose it is and among which neighbours it
was finished. Words and marks are looked for at once: among the newest few hundred texts, then, where that
gives too few, among ever more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_WORDS_AND_MARKS = (
    "(to_tsvector('simple'::regconfig, text) || array_to_tsvector(ARRAY["
    r"E'\x01' || tenant::text,"
    r" E'\x01a' || (seq >> 9)::text || ' ' || tenant::text,"
    r" E'\x01b' || (seq >> 12)::text || ' ' || tenant::text,"
    r" E'\x01c' || (seq >> 15)::text || ' ' || tenant::text]))"
)
"""As the index has it, see `0001_jobs`. No text has a word that begins with U+0001."""
_MARKS = (("a", 9), ("b", 12), ("c", 15))
"""Each text has one of each kind, and shares it with two to the power of so many neighbours."""

_LONGEST_WHOLE = 2_000
"""Characters of a text that are gone through for its excerpt; of a longer one, those around the first place
where a word stands."""
_EXCERPT = (
    "ts_headline('simple', {text}, CAST(:words AS tsquery),"
    " 'StartSel=«, StopSel=», MaxWords=24, MinWords=12, MaxFragments=1')"
)


@dataclass(frozen=True, slots=True)
class Hit:
    """excerpt: the text around what was found, which stands between « and »."""

    transcription_id: str
    excerpt: str


async def search(
    connection: AsyncConnection, tenant: str, words: Sequence[str], *, before: str | None, limit: int
) -> list[Hit]:
    """Transcripts that hold all these words, the one that was finished last first.

    Args:
        words: without case; one that ends in * stands for all that begin so.
        before: only transcripts finished before that of the transcription with this id.
    """
    words = [word for word in words if any(map(str.isalnum, word))]  # what else is in texts is in no index
    if not words:
        return []
    end = await _end(connection, tenant, before)
    if end is None:
        return []
    if connection.dialect.name == "sqlite":
        return await _search_sqlite(connection, tenant, words, end, limit)
    return await _search_postgresql(connection, tenant, words, end, limit)


async def _end(connection: AsyncConnection, tenant: str, before: str | None) -> int | None:
    """The results that count have a smaller seq; None: there are none."""
    if before is None:
        newest = (await connection.execute(text("SELECT max(seq) FROM results"))).scalar()
        return None if newest is None else int(newest) + 1
    # It may have been erased since: then the one that was made before it.
    rows = await connection.execute(
        text(
            "SELECT transcription_id, seq FROM results WHERE tenant = :tenant AND transcription_id <= :before"
            " ORDER BY transcription_id DESC LIMIT 1"
        ),
        {"tenant": tenant, "before": before},
    )
    row = rows.first()
    if row is None:
        return None
    return int(row.seq) + int(row.transcription_id != before)


async def _search_sqlite(
    connection: AsyncConnection, tenant: str, words: Sequence[str], end: int, limit: int
) -> list[Hit]:
    wanted = " ".join(
        f"{_quoted(word[:-1])}*" if word.endswith("*") else _quoted(word)
        for word in (word.replace('"', "") for word in words)
    )
    rows = await connection.execute(
        text(
            "SELECT r.transcription_id, snippet(result_texts, 0, '«', '»', '…', 24)"
            " FROM result_texts CROSS JOIN results r ON r.seq = result_texts.rowid"
            " WHERE result_texts MATCH :query AND result_texts.rowid < :end AND r.tenant = :tenant"
            " ORDER BY result_texts.rowid DESC LIMIT :limit"
        ),
        {
            "query": f"text : ({wanted}) AND tenant : {_quoted(tenant)}",
            "tenant": tenant,
            "end": end,
            "limit": limit,
        },
    )
    return [Hit(*row) for row in rows]


def _quoted(word: str) -> str:
    return '"' + word.replace('"', '""') + '"'


async def _search_postgresql(
    connection: AsyncConnection, tenant: str, words: Sequence[str], end: int, limit: int
) -> list[Hit]:
    terms = [_lexeme(word.rstrip("*")) + (":*" if word.endswith("*") else "") for word in words]
    kept = await connection.begin_nested()
    try:
        # The planner believes that a common word is found sooner by reading the table: it does not know
        # what it costs to take a text apart again.
        asked = await connection.execute(
            text(
                "SELECT CAST(to_tsquery('simple', :terms) AS text), set_config('jit', 'off', true),"
                " set_config('enable_seqscan', 'off', true), set_config('enable_indexscan', 'off', true),"
                " set_config('max_parallel_workers_per_gather', '0', true)"
            ),
            {"terms": " & ".join(terms)},
        )
        query = str(asked.scalar_one())
        seqs = await _newest(connection, tenant, query, end, limit) if query else []
    finally:
        await kept.rollback()  # and with it, what the planner was told
    return await _excerpts(connection, words, query, seqs)


def _lexeme(word: str) -> str:
    # Quoted, a word cannot be read as an operator.
    return "'" + word.replace("\\", " ").replace("'", "''") + "'"


async def _newest(connection: AsyncConnection, tenant: str, query: str, end: int, limit: int) -> list[int]:
    for kind, bits in _MARKS:
        last = (end - 1) >> bits
        among = " | ".join(
            _mark(f"\x01{kind}{number} {tenant}") for number in range(last, max(last - 2, -1), -1)
        )
        seqs = await _among(connection, tenant, f"({query}) & ({among})", end, limit)
        if len(seqs) == limit or last <= 1:
            return seqs
    return await _among(connection, tenant, f"({query}) & {_mark(chr(1) + tenant)}", end, limit)


def _mark(mark: str) -> str:
    return "'" + mark.replace("\\", "\\\\").replace("'", "''") + "'"


async def _among(connection: AsyncConnection, tenant: str, query: str, end: int, limit: int) -> list[int]:
    rows = await connection.execute(
        text(
            # Two questions: else the order would be taken from an index, and every text be looked at. The
            # sum keeps the end from being looked up in one.
            f"SELECT seq FROM (SELECT seq FROM results WHERE {_WORDS_AND_MARKS} @@ CAST(:query AS tsquery)"  # noqa: S608
            " AND tenant = :tenant AND seq + 0 < :end OFFSET 0) AS found ORDER BY seq DESC LIMIT :limit"
        ).bindparams(query=query, tenant=tenant, end=end, limit=limit)
    )
    return [int(seq) for seq in rows.scalars()]


async def _excerpts(
    connection: AsyncConnection, words: Sequence[str], query: str, seqs: Sequence[int]
) -> list[Hit]:
    """In the order of `seqs`."""
    if not seqs:
        return []
    shortened = (
        f"CASE WHEN length(text) <= {_LONGEST_WHOLE} THEN text ELSE regexp_replace(substr(text,"
        f" greatest(first - {_LONGEST_WHOLE // 4}, 1), {_LONGEST_WHOLE}), '^\\S*\\s|\\s\\S*$', '', 'g') END"
    )
    rows = await connection.execute(
        text(
            f"SELECT seq, transcription_id, {_EXCERPT.format(text=shortened)} AS excerpt"  # noqa: S608
            " FROM results, LATERAL (SELECT min(nullif(strpos(lower(text), word), 0)) AS first"
            " FROM unnest(CAST(:plain AS text[])) AS word) AS places WHERE seq = ANY(:seqs)"
        ),
        {"words": query, "plain": [word.rstrip("*").lower() for word in words], "seqs": list(seqs)},
    )
    found = {int(row.seq): Hit(row.transcription_id, row.excerpt) for row in rows}
    # What was taken for a word was a part of another.
    missed = [seq for seq, hit in found.items() if "«" not in hit.excerpt]
    if missed:
        rows = await connection.execute(
            text(
                f"SELECT seq, transcription_id, {_EXCERPT.format(text='text')} AS excerpt"  # noqa: S608
                " FROM results WHERE seq = ANY(:seqs)"
            ),
            {"words": query, "seqs": missed},
        )
        found |= {int(row.seq): Hit(row.transcription_id, row.excerpt) for row in rows}
    return [found[seq] for seq in seqs if seq in found]
