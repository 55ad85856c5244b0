"""The search in transcripts, on results far apart: what is found must not depend on where they are."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

import pytest
from sqlalchemy import insert

from voiceforge.infra.db import results, transcriptions
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.records import NewJob, Rank
from voiceforge.infra.db.search import Hit, search
from voiceforge.infra.db.tables import results as table

ODD = 'o\'b \\ "x" a|b & !'
"""A tenant that would break a query it is put into as it is."""
# On both sides of where marks change, see `search`.
SEQS = (1, 2, 511, 512, 513, 1023, 1024, 4095, 4096, 9000, 32767, 32768, 70_000, 70_001, 200_000, 200_001)


async def keep(database: Database, tenant: str, texts: Mapping[int, str]) -> dict[int, str]:
    """seq -> the id of the transcription. Those made later are not those finished later."""
    ids = {seq: new_id("tr", 1000.0 + (seq * 7919) % 100_000) for seq in texts}
    async with database.transaction() as connection:
        for seq, text in texts.items():
            new = NewJob(ids[seq], tenant, Rank.NORMAL, "tiny", {}, {}, 1000.0)
            await transcriptions.add(connection, new)
            await connection.execute(
                insert(table).values(
                    seq=seq, transcription_id=ids[seq], tenant=tenant, data=b"", text=text, created_at=1.0
                )
            )
    return ids


async def find(
    database: Database, tenant: str, words: str, *, before: str | None = None, limit: int = 100
) -> list[Hit]:
    async with database.reading() as connection:
        return await search(connection, tenant, words.split(), before=before, limit=limit)


def found(hits: Iterable[Hit]) -> list[str]:
    return [hit.transcription_id for hit in hits]


async def test_what_was_finished_last_comes_first(database: Database) -> None:
    ids = await keep(database, "a", {seq: f"Common words, w{seq} among them." for seq in SEQS})
    newest = [ids[seq] for seq in sorted(SEQS, reverse=True)]
    assert found(await find(database, "a", "common")) == newest
    assert found(await find(database, "a", "words COMMON", limit=3)) == newest[:3]
    for seq in SEQS:
        assert found(await find(database, "a", f"common w{seq}")) == [ids[seq]]


async def test_pages(database: Database) -> None:
    ids = await keep(database, "a", dict.fromkeys(SEQS, "again and again"))
    newest = [ids[seq] for seq in sorted(SEQS, reverse=True)]
    seen: list[str] = []
    while page := found(await find(database, "a", "again", before=seen[-1] if seen else None, limit=3)):
        seen += page
    assert seen == newest
    gone = ids[32768]
    async with database.transaction() as connection:
        await results.forget(connection, gone, 1.0)
    after = found(await find(database, "a", "again", before=gone))
    assert gone not in after
    assert found(await find(database, "a", "again", before=new_id("tr", 0.0))) == []


@pytest.mark.parametrize("other", ["b", "a b", ODD])
async def test_tenants_are_kept_apart(database: Database, other: str) -> None:
    ours = await keep(database, "a", dict.fromkeys(SEQS[::2], "shared secret"))
    theirs = await keep(database, other, dict.fromkeys(SEQS[1::2], f"shared a b {other} default"))
    assert set(found(await find(database, "a", "shared"))) == set(ours.values())
    assert set(found(await find(database, other, "shared"))) == set(theirs.values())
    assert found(await find(database, other, "secret")) == []
    assert found(await find(database, "c", "shared")) == []


async def test_it_finds_what_is_there(database: Database) -> None:
    chance = random.Random(7)
    vocabulary = [f"w{number}" for number in range(12)]
    spoken = {seq: frozenset(chance.sample(vocabulary, 5)) for seq in chance.sample(range(1, 150_000), 80)}
    ids = await keep(database, "a", {seq: " ".join(sorted(words)) for seq, words in spoken.items()})
    for _ in range(20):
        wanted = chance.sample(vocabulary, chance.randint(1, 3))
        limit = chance.randint(1, 30)
        fitting = [ids[seq] for seq in sorted(spoken, reverse=True) if spoken[seq].issuperset(wanted)]
        assert found(await find(database, "a", " ".join(wanted), limit=limit)) == fitting[:limit]
    begin = [ids[seq] for seq in sorted(spoken, reverse=True) if spoken[seq] & {"w1", "w10", "w11"}]
    assert found(await find(database, "a", "w1*")) == begin


async def test_the_excerpt_of_a_long_text_is_of_where_the_word_stands(database: Database) -> None:
    filler = " ".join(f"filler{number}" for number in range(2000))
    await keep(
        database,
        "a",
        {1: f"{filler} the needle lies here {filler}", 2: f"{filler} needles {filler} a needle {filler}"},
    )
    for hit in await find(database, "a", "needle"):
        assert "«needle»" in hit.excerpt
        assert len(hit.excerpt) < 600


@pytest.mark.parametrize("words", ["", "-", "'", "½ \\", "\x01a", "& | !"])
async def test_nothing_is_found_by_what_is_no_word(database: Database, words: str) -> None:
    await keep(database, "a", {1: "some words"})
    assert await find(database, "a", words) == []


async def test_an_empty_database(database: Database) -> None:
    assert await find(database, "a", "word") == []
