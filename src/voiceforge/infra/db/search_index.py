"""What stays of erased words in SQLite's search index, and getting rid of it.

SQLite before 3.42 only notes there that a row is gone; its words stay in the index until that is merged.
Merging goes in steps, so that nobody waits long for his turn to write. PostgreSQL's VACUUM sees to its own.
"""

from __future__ import annotations

from sqlalchemy import delete, select, text
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from voiceforge.infra.db.tables import chores as table

_MARK = "erased_words"
"""A row among the chores that is nobody's: it stands there while words are to be cleared away; due_at says
since when, at the latest."""
_STEP_PAGES = 200


async def note_erased(connection: AsyncConnection, now: float) -> None:
    """Rows of the results were deleted in this transaction."""
    if connection.dialect.name == "sqlite":
        new = insert(table).values(name=_MARK, due_at=now)
        await connection.execute(new.on_conflict_do_update(index_elements=["name"], set_={"due_at": now}))


async def noted(connection: AsyncConnection) -> float | None:
    """When that was last; None: there is nothing to clear away."""
    rows = await connection.execute(select(table.c.due_at).where(table.c.name == _MARK))
    return rows.scalar()


async def begin_merging(connection: AsyncConnection) -> bool:
    """From now on the index is to become one piece; False: it holds no erased words."""
    secure = text("SELECT v FROM result_texts_config WHERE k = 'secure-delete'")
    if (await connection.execute(secure)).scalar():
        return False
    await _merge(connection, -_STEP_PAGES)
    return True


async def merge_further(connection: AsyncConnection) -> bool:
    """Another step; False: that was not needed any more."""
    return await _merge(connection, _STEP_PAGES)


async def note_cleared(connection: AsyncConnection, at: float) -> None:
    """Unless more was erased after `at`."""
    await connection.execute(delete(table).where(table.c.name == _MARK, table.c.due_at == at))


async def _merge(connection: AsyncConnection, pages: int) -> bool:
    before = await _changes(connection)
    statement = text("INSERT INTO result_texts(result_texts, rank) VALUES ('merge', :pages)")
    await connection.execute(statement, {"pages": pages})
    # Its own row counts as one; https://sqlite.org/fts5.html, "The 'merge' Command".
    return await _changes(connection) - before >= 2


async def _changes(connection: AsyncConnection) -> int:
    return int((await connection.execute(text("SELECT total_changes()"))).scalar_one())
