"""One database, SQLite or PostgreSQL: its connections, its transactions, and what its failures mean.

SQLite has one writer at a time: transactions that write take turns here, and wait for those of other
processes. Readers never wait (write-ahead log).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from voiceforge.errors import DependencyMissing, InvalidRequest, StorageFull, Unavailable

_RETRY_AFTER_S = 2.0
_BUSY_MS = 10_000
_PASSING_SQLITE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
    }
)
_DISK_FULL_POSTGRESQL = "53100"
# Connection lost, deadlock and the like, too little of something, somebody stopped it, the system below.
_PASSING_POSTGRESQL = ("08", "40", "53", "57", "58")


@dataclass(frozen=True, slots=True)
class PoolSizes:
    """connections: kept and used at once. wait_s: for one of them, before a request is turned away."""

    connections: int = 8
    wait_s: float = 5.0


class Database:
    """Opens connections on first use.

    Args:
        url: as SQLAlchemy writes it; `sqlite:///path` and `postgresql://…` get our drivers.

    Raises:
        InvalidRequest: the URL is of no database that we know.
        DependencyMissing: its driver is not installed.
    """

    def __init__(self, url: str, pool: PoolSizes = PoolSizes()) -> None:  # frozen
        self._url = database_url(url)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self._writing = asyncio.Lock()
        self._refusal: str | None = None
        self._opened = asyncio.Event()
        self._opened.set()
        self._wait_s = pool.wait_s
        self._engine = _engine(self._url, pool)

    @property
    def name(self) -> str:
        """Where it is, without a password."""
        return self._url.set(drivername=self._url.get_backend_name()).render_as_string(hide_password=True)

    def refuse(self, why: str | None, *, soon: bool = False) -> None:
        """From now on whoever comes is told this, as Unavailable; None: all is well again.

        Args:
            soon: it will not be for long: who comes waits, as for a connection, before being told.
        """
        self._refusal = why
        if soon:
            self._opened.clear()
        else:
            self._opened.set()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Committed at the end of the block, undone where it raises. Then comes what was asked for by
        `after_commit`.

        Raises:
            Unavailable: the database does not answer; it may or may not have committed.
            StorageFull: its disk is full; likewise.
        """
        afterwards: list[Callable[[], Awaitable[object]]] = []
        async with contextlib.AsyncExitStack() as stack:
            if self.is_sqlite:
                await stack.enter_async_context(self._writing)
            connection = await stack.enter_async_context(self._connected())
            stack.enter_context(failures_told())
            connection = await connection.execution_options(writes=True, afterwards=afterwards)
            async with connection.begin():
                yield connection
        for act in afterwards:
            await act()

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """For a few reads that need not be of one moment, unless they are one statement.

        Raises:
            Unavailable: the database does not answer.
        """
        async with self._connected() as connection:
            with failures_told():
                yield connection

    async def check(self) -> None:
        """
        Raises:
            Unavailable
        """
        async with self.reading() as connection:
            await connection.execute(text("SELECT 1"))

    async def clear_log(self) -> bool:
        """Move what SQLite's write-ahead log holds to where it belongs, and empty the log: it may hold what
        was erased since. False: somebody reads at this moment, or there is no such log.

        Raises:
            Unavailable
        """
        if not self.is_sqlite:
            return False
        async with self._connected() as connection:
            with failures_told():
                bare = await connection.execution_options(bare=True)
                row = (await bare.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")).one()
                return not row[0]

    async def close(self) -> None:
        await self._engine.dispose()

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        if not self._opened.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._opened.wait(), self._wait_s)
        if self._refusal is not None:
            raise Unavailable(self._refusal, retry_after_s=_RETRY_AFTER_S)
        with failures_told():
            connection = await self._engine.connect()
        try:
            yield connection
        finally:
            # A cancelled caller must not leave a connection in the middle of something to the next.
            with contextlib.suppress(Exception):
                await asyncio.shield(connection.close())


def after_commit(connection: AsyncConnection, act: Callable[[], Awaitable[object]]) -> None:
    """Do this once the transaction of the connection is committed, and not if it never is."""
    connection.sync_connection.get_execution_options()["afterwards"].append(act)  # type: ignore[union-attr]


def database_url(url: str) -> URL:
    """
    Raises:
        InvalidRequest: it is of no database that we know.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidRequest("this is not the URL of a database", field="database.url") from None
    match parsed.get_backend_name():
        case "sqlite":
            return parsed.set(drivername="sqlite+aiosqlite")
        case "postgresql" | "postgres":
            return parsed.set(drivername="postgresql+psycopg")
        case other:
            raise InvalidRequest(
                f"no database of the kind {other[:40]!r}: choose sqlite or postgresql", field="database.url"
            )


def _private(path: Path) -> Callable[..., None]:
    """What was said is nobody else's on this machine. The files that SQLite puts beside it get its rights."""

    def create(*_: object) -> None:
        with contextlib.suppress(OSError):  # it is there, or cannot be: SQLite says so better
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))

    return create


def _engine(url: URL, pool: PoolSizes) -> AsyncEngine:
    try:
        if url.get_backend_name() == "sqlite":
            if url.database:
                Path(url.database).parent.mkdir(parents=True, exist_ok=True)
            engine = create_async_engine(
                url,
                poolclass=AsyncAdaptedQueuePool,
                pool_size=pool.connections,
                max_overflow=0,
                pool_timeout=pool.wait_s,
            )
            if url.database and url.database != ":memory:":
                event.listen(engine.sync_engine, "do_connect", _private(Path(url.database)))
            event.listen(engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(engine.sync_engine, "begin", _begin_sqlite)
            return engine
        return create_async_engine(
            url,
            pool_pre_ping=True,
            pool_size=pool.connections,
            max_overflow=0,
            pool_timeout=pool.wait_s,
            connect_args={"connect_timeout": max(int(pool.wait_s), 2)},
        )
    except ModuleNotFoundError as error:
        raise DependencyMissing(
            "database.url needs a driver that is not installed. Run: pip install 'voiceforge[postgres]'"
        ) from error


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # we begin transactions ourselves
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # what was accepted survives a power cut
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA secure_delete = ON")  # what is erased is not left in the file
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    options = connection.get_execution_options()
    if options.get("bare", False):  # of what is not allowed in a transaction
        return
    # A transaction that reads first and writes later would fail where another wrote between.
    writes = options.get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextlib.contextmanager
def failures_told() -> Iterator[None]:
    """What a database's failures are to us. Broken rules (IntegrityError) and our own mistakes go on as they
    are: the noun that made them knows what they mean.

    Raises:
        Unavailable: the database is not there or too busy; another time it may be.
        StorageFull: its disk is full.
    """
    try:
        yield
    except (PoolTimeout, ConnectionError) as error:
        raise _unavailable() from error
    except DBAPIError as error:
        if _is_full(error):
            raise StorageFull("the database has no room left") from error
        if error.connection_invalidated or _passes(error):
            raise _unavailable() from error
        raise


def _unavailable() -> Unavailable:
    return Unavailable("the database does not answer for now", retry_after_s=_RETRY_AFTER_S)


def _is_full(error: DBAPIError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None)
    if isinstance(code, int):
        return code & 0xFF == sqlite3.SQLITE_FULL
    return getattr(error.orig, "sqlstate", None) == _DISK_FULL_POSTGRESQL


def _passes(error: DBAPIError) -> bool:
    """Whether it is the state of the database that failed, not what was asked of it."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    if isinstance(code, int):
        return code & 0xFF in _PASSING_SQLITE
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(state, str):
        return state.startswith(_PASSING_POSTGRESQL)
    return isinstance(error, (OperationalError, InterfaceError))
