"""Jobs when there are many: accepting, listing, showing and searching, through the HTTP door.

A million jobs stand in a PostgreSQL server of our own, a hundred thousand in SQLite. Made up in the database,
one in a hundred waits, one in a hundred failed, the rest are completed; one in a hundred thousand is of
another model, ten at a time make a batch, up to `--texts` of them have a text (see `made_up_texts.py`). The
server works on none of them meanwhile. Times are of the client, on one connection; p95 of all calls of a
kind. Claiming is done in the database alone, as workers do.

Submitting is measured at a steady rate, whatever comes back when: beyond what the same upload costs on a
route that stores nothing (`/v1/transcriptions` refuses it after it has arrived).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from figures import Bound, Report, parser, row
from made_up_texts import texts, words
from processes import environment, serving
from sqlalchemy import make_url, text

from voiceforge.api.native.job_convert import cursor_of
from voiceforge.infra.db import leases
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.migrate import Migrations
from voiceforge.infra.db.records import Rank
from voiceforge.services.result_codec import ResultCodec
from voiceforge.services.samples import sample_recordings
from voiceforge.testing.postgres_server import postgres_server
from voiceforge.testing.scripted_services import spoken

_CALLS = 300
_WITHIN = Bound(25, "at most")
_SEARCH_WITHIN = Bound(50, "at most")
_SUBMIT_WITHIN = Bound(50, "at most")
_FIRST_MS = 1_700_000_000_000

_SERIES = {
    "postgresql": "SELECT g FROM generate_series(0, :count - 1) AS s(g)",
    "sqlite": "WITH RECURSIVE s(g) AS (SELECT 0 UNION ALL SELECT g + 1 FROM s WHERE g < :count - 1)"
    " SELECT g FROM s",
}
_ID = {
    "postgresql": f"'tr_' || lpad(to_hex({_FIRST_MS} + g), 12, '0') || lpad(to_hex(g), 20, '0')",
    "sqlite": f"printf('tr_%012x%020x', {_FIRST_MS} + g, g)",
}
_MODEL = "CASE g % 100000 WHEN 99999 THEN 'another' ELSE 'moonshine-tiny-en' END"
_BATCH = "'bat_' || (g / 10)"
_STATUS = "CASE g % 100 WHEN 7 THEN 'queued' WHEN 8 THEN 'failed' ELSE 'completed' END"


def main() -> None:
    made = parser(__doc__, rounds=1)
    made.add_argument("--postgresql", type=int, default=1_000_000, help="jobs there (default %(default)s)")
    made.add_argument("--sqlite", type=int, default=100_000, help="jobs there (default %(default)s)")
    made.add_argument("--texts", type=int, default=50_000, help="at most, in each (default %(default)s)")
    made.add_argument("--rate", type=float, default=20.0, help="submissions per second")
    made.add_argument("--seconds", type=float, default=20.0, help="of submitting")
    args = made.parse_args()
    report = Report("jobs_scale")
    with postgres_server(durable=True) as server, tempfile.TemporaryDirectory() as folder:
        for kind, count, url in (
            ("PostgreSQL", args.postgresql, server.new_database()),
            ("SQLite", args.sqlite, f"sqlite:///{folder}/jobs.db"),
        ):
            if count:
                asyncio.run(_measure(report, args, kind, count, url, Path(folder) / kind))
    report.finish(args.json)


async def _measure(report: Report, args: Namespace, kind: str, count: int, url: str, folder: Path) -> None:
    print(f"{kind}: making {count:,} jobs", flush=True)
    with_text = min(args.texts, count)
    report.details[f"{kind} plans"] = await _fill(url, count, with_text)
    env = environment(
        folder, VOICEFORGE_DATABASE__URL=url, VOICEFORGE_JOBS__WORKERS="0", VOICEFORGE_LOG__LEVEL="warning"
    )
    with serving(env) as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            for name, call in _calls(client, count, with_text):
                print(f"{kind}: {name}", file=sys.stderr)
                took = [await _timed(call) for _ in range(_CALLS)][_CALLS // 10 :]
                report.details[f"{kind} {name} ms"] = _spread(took)
                goal = _SEARCH_WITHIN if name.startswith("search") else _WITHIN
                report.rows.append(row(f"{kind}, {count:,} jobs: {name}, p95", _p95(took), "ms", bound=goal))
            took = await _claims(url)
            report.details[f"{kind} claim ms"] = _spread(took)
            report.rows.append(row(f"{kind}, {count:,} jobs: claim the next, p95", _p95(took), "ms"))
            beyond, spread = await _submit(client, args)
            report.details[f"{kind} submit ms"] = spread
            report.rows.append(
                row(
                    f"{kind}: submitting at {args.rate:g}/s, p95 beyond the upload",
                    beyond,
                    "ms",
                    bound=_SUBMIT_WITHIN,
                )
            )


async def _fill(url: str, count: int, with_text: int) -> dict[str, str]:
    """Returns how the database means to do what the doors ask of it."""
    database = Database(url)
    await Migrations(database).upgrade()
    series = _SERIES["sqlite" if database.is_sqlite else "postgresql"]
    made_id = _ID["sqlite" if database.is_sqlite else "postgresql"]
    empty = "'{}'" if database.is_sqlite else "'{}'::jsonb"
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO batches (id, tenant, metadata, size, refused, created_at)"
                f" SELECT {_BATCH}, 'default', {empty}, 10, {empty}, 0 FROM ({series}) AS numbers"
                " WHERE g % 10 = 0"
            ),
            {"count": count},
        )
        await connection.execute(
            text(
                "INSERT INTO transcriptions (id, tenant, status, rank, model, options, metadata, created_at,"
                " available_at, attempts, cancel_requested, done_s, duration_s, finished_at, batch_id,"
                f" batch_index) SELECT {made_id}, 'default', {_STATUS}, g % 3, {_MODEL}, {empty}, {empty},"
                f" {_FIRST_MS / 1000} + g / 1000.0, 0, 1, {'0' if database.is_sqlite else 'false'}, 10, 10,"
                f" {_FIRST_MS / 1000} + g / 1000.0, {_BATCH}, g % 10 FROM ({series}) AS numbers"
            ),
            {"count": count},
        )
    _add_texts(url, database.is_sqlite, count, with_text)
    async with database.transaction() as connection:
        for job_id in _with_result(count, with_text):
            await connection.execute(
                text("UPDATE results SET data = :data WHERE transcription_id = :id"),
                {"id": job_id, "data": ResultCodec().pack(job_id, spoken("The quick brown fox."))},
            )
        await connection.execute(text("ANALYZE"))
    plans = {}
    async with database.reading() as connection:
        explain = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
        for name, query in _PLANS.items():
            plan = await connection.execute(text(explain + query))
            plans[name] = "\n".join(str(tuple(line)) for line in plan)
    await database.close()
    return plans


def _add_texts(url: str, is_sqlite: bool, count: int, with_text: int) -> None:
    """Evenly over the jobs; by the drivers themselves, since it takes minutes otherwise."""
    every = max(count // with_text, 1)
    rows = ((_id(number * every), "default", b"2", made, 0.0) for number, made in enumerate(texts(with_text)))
    columns = "results (transcription_id, tenant, data, text, created_at)"
    if is_sqlite:
        with contextlib.closing(sqlite3.connect(make_url(url).database or "")) as connection, connection:
            connection.executemany(f"INSERT INTO {columns} VALUES (?, ?, ?, ?, ?)", rows)
        return
    import psycopg

    with psycopg.connect(url.replace("+psycopg", "")) as server:
        # An index is made faster than it grows.
        made = server.execute("SELECT pg_get_indexdef('ix_results_search'::regclass)").fetchone()
        assert made is not None
        server.execute("DROP INDEX ix_results_search")
        with server.cursor().copy(f"COPY {columns} FROM STDIN") as copy:
            for row_ in rows:
                copy.write_row(row_)
        server.execute(made[0])


_OF_TENANT = "SELECT * FROM transcriptions WHERE tenant = 'default'"
_PLANS = {
    "list": f"{_OF_TENANT} ORDER BY id DESC LIMIT 21",
    "list of a status": f"{_OF_TENANT} AND status = 'failed' ORDER BY id DESC LIMIT 21",
    "list of a model": f"{_OF_TENANT} AND model = 'another' ORDER BY id DESC LIMIT 21",
    "list of a model and a status": f"{_OF_TENANT} AND model = 'another' AND status = 'failed'"
    " ORDER BY id DESC LIMIT 21",
    "list of a batch": f"{_OF_TENANT} AND batch_id = 'bat_77' ORDER BY id DESC LIMIT 21",
    "list of a status and dates": f"{_OF_TENANT} AND status = 'failed' AND id >= 'tr_018bcfe5'"
    " AND id < 'tr_018bcfe6' ORDER BY id DESC LIMIT 21",
    "list from the middle": f"{_OF_TENANT} AND id < 'tr_018bcfe5' ORDER BY id DESC LIMIT 21",
    "show": f"{_OF_TENANT} AND id = 'tr_018bcfe5'",
    "claim": "SELECT id FROM transcriptions WHERE status = 'queued' AND available_at <= 1e12"
    " ORDER BY rank, id LIMIT 1",
    "place in the queue": "SELECT count(*) FROM (SELECT id FROM transcriptions WHERE status = 'queued'"
    " AND (rank < 1 OR rank = 1 AND id < 'tr_018bcfe5') LIMIT 1000) AS waiting",
}


def _id(number: int) -> str:
    return f"tr_{_FIRST_MS + number:012x}{number:020x}"


def _with_result(count: int, with_text: int) -> list[str]:
    """Completed jobs whose result can be read."""
    every = max(count // with_text, 1)
    numbers = [number * every for number in random.Random(2).sample(range(with_text), 200)]
    return [_id(number) for number in numbers if number % 100 not in (7, 8)][:100]


def _calls(
    client: httpx.AsyncClient, count: int, with_text: int
) -> Iterator[tuple[str, Callable[[], Awaitable[Any]]]]:
    chance, texts_of = random.Random(1), _with_result(count, with_text)
    known = words()

    def some_id(residue: int) -> str:
        return _id(chance.randrange(count // 100) * 100 + residue)

    def some_time() -> str:
        return f"{(_FIRST_MS + chance.randrange(count)) / 1000:.3f}"

    async def get(path: str, **params: str) -> httpx.Response:
        response = await client.get(path, params=params)
        response.raise_for_status()
        return response

    def listed(**params: str) -> Awaitable[httpx.Response]:
        return get("/v1/transcriptions", limit="20", **params)

    def search(*among: tuple[int, int]) -> Callable[[], Awaitable[httpx.Response]]:
        """For one word of each of these ranges, the most common words first."""

        def call() -> Awaitable[httpx.Response]:
            wanted = " ".join(known[chance.randrange(*between)] for between in among)
            return get("/v1/transcriptions/search", limit="20", q=wanted)

        return call

    yield "list", listed
    yield "list of a status", lambda: listed(status="failed")
    yield "list of a model", lambda: listed(model="another")
    yield "list of a model and a status", lambda: listed(model="another", status="failed")
    yield "list of a batch", lambda: listed(batch_id=f"bat_{chance.randrange(count // 10)}")
    yield "list before a time", lambda: listed(created_before=some_time())
    yield (
        "list of a status, between two times",
        lambda: listed(status="failed", created_after=f"{_FIRST_MS / 1000:.3f}", created_before=some_time()),
    )
    yield "list, a page from anywhere", lambda: listed(cursor=cursor_of(some_id(1)))
    yield (
        "list of a status, a page from anywhere",
        lambda: listed(status="failed", cursor=cursor_of(some_id(1))),
    )
    yield "show a failed one", lambda: get(f"/v1/transcriptions/{some_id(8)}")
    yield "show a completed one", lambda: get(f"/v1/transcriptions/{chance.choice(texts_of)}")
    yield "show a waiting one", lambda: get(f"/v1/transcriptions/{some_id(7)}")
    yield "search, a word of every text", search((0, 5))
    yield "search, a common word", search((5, 300))
    yield "search, a word of one text in a hundred", search((300, 3_000))
    yield "search, a rare word", search((20_000, 50_000))
    yield "search, a common and a rare word", search((0, 20), (20_000, 50_000))
    yield "search, two words that seldom meet", search((300, 3_000), (300, 3_000))
    yield (
        "search, a word that begins so",
        lambda: get(
            "/v1/transcriptions/search", limit="20", q=f"{known[chance.randrange(300, 50_000)][:4]}*"
        ),
    )
    yield (
        "search, a page from anywhere",
        lambda: get(
            "/v1/transcriptions/search",
            limit="20",
            q=known[chance.randrange(5, 300)],
            cursor=cursor_of(chance.choice(texts_of)),
        ),
    )


async def _claims(url: str) -> list[float]:
    """Milliseconds of each, as a worker does it; it never begins with the work."""
    database = Database(url)

    async def claim() -> None:
        async with database.transaction() as connection:
            claim = await leases.claim_next(
                connection, list(Rank), worker="benchmark", now=time.time(), lease_s=3600.0
            )
        assert claim is not None

    took = [await _timed(claim) for _ in range(_CALLS)][_CALLS // 10 :]
    await database.close()
    return took


async def _submit(client: httpx.AsyncClient, args: Namespace) -> tuple[float, dict[str, float]]:
    clip = sample_recordings()[0].read_bytes()

    async def accepted(mark: int) -> None:
        # Another recording each time: one that is known already would not be stored.
        data = clip + mark.to_bytes(8, "little")
        files = {"file": ("a.wav", data, "audio/wav")}
        response = await client.post("/v1/transcriptions", data={"mode": "async"}, files=files)
        assert response.status_code == 202, response.text

    async def refused(mark: int) -> None:
        data = clip + mark.to_bytes(8, "little")
        files = {"file": ("a.wav", data, "audio/wav")}
        response = await client.post("/v1/transcriptions", data={"language": "xx"}, files=files)
        assert response.status_code == 422, response.text

    uploads = await _at_rate(refused, args.rate, args.seconds / 4)
    submits = await _at_rate(accepted, args.rate, args.seconds)
    beyond = _p95(submits) - statistics.median(uploads)
    return beyond, _spread(submits) | {"upload_p50": statistics.median(uploads)}


async def _at_rate(act: Callable[[int], Awaitable[None]], rate: float, seconds: float) -> list[float]:
    """Milliseconds of each, begun at even distances."""
    tasks = []
    async for number in _ticks(rate, seconds):
        tasks.append(asyncio.create_task(_timed(lambda number=number: act(number))))  # type: ignore[misc]
    return await asyncio.gather(*tasks)


async def _ticks(rate: float, seconds: float) -> AsyncIterator[int]:
    started = time.perf_counter()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(started + number / rate - time.perf_counter(), 0))
        yield number


async def _timed(act: Callable[[], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await act()
    return 1000 * (time.perf_counter() - started)


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]


def _spread(values: list[float]) -> dict[str, float]:
    return {"p50": statistics.median(values), "p95": _p95(values), "max": max(values)}


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
