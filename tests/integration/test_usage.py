"""What was transcribed is booked once, on both databases; added up by the day, told, held against quotas."""

from __future__ import annotations

import asyncio
import hashlib
import random
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from voiceforge.api.app import create_app
from voiceforge.api.http.config import HttpConfig
from voiceforge.errors import InvalidRequest, PermissionDenied, QuotaExceeded, RateLimited
from voiceforge.infra.db import usage as rows
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.usage import DAY_S, Booking, UsageFilter
from voiceforge.services.access import OWNER, Caller, Role, Scope, scopes_of
from voiceforge.services.bookings import Heard
from voiceforge.services.job_intake import JobRequest
from voiceforge.services.ledger import Ledger
from voiceforge.services.recordings import AudioBytes
from voiceforge.services.samples import sample_recordings
from voiceforge.services.tiers import Tier, Tiers
from voiceforge.services.usage import Prices, Usage, as_csv
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.job_house import job_house
from voiceforge.testing.memory_blobs import MemoryBlobs
from voiceforge.testing.scripted_services import ScriptedTranscriptions, scripted_services

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
SOMEBODY = Caller("acme", Role.MEMBER, scopes_of(Role.MEMBER, "acme"), "user-1", "key-1", tier="small")
PRICES = Prices({"large": Decimal("0.01"), "*": Decimal("0.001")}, "EUR")
TIERS = Tiers({"small": Tier(audio_minutes_soft=1, audio_minutes_hard=2), "tiny": Tier(audio_minutes_hard=1)})


class Clock:
    now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def usage(database: Database, clock: Clock) -> Usage:
    return Usage(database, PRICES, keep_s=3 * DAY_S, clock=clock)


@pytest.fixture
async def ledger(database: Database, clock: Clock) -> Ledger:
    return Ledger(database, TIERS, Metrics("test"), clock=clock)


def heard(caller: Caller = SOMEBODY, audio_s: float = 30.0, **more: object) -> Heard:
    values = {"door": "openai", "model": "large", "work_class": "interactive", "latency_s": 2.0} | more
    return Heard(caller=caller, audio_s=audio_s, **values)  # type: ignore[arg-type]


async def booked(database: Database, *bookings: Booking) -> None:
    async with database.transaction() as connection:
        await rows.add(connection, bookings)


def booking(number: int, **changes: object) -> Booking:
    made = Booking(f"b{number}", "acme", NOON, None, None, "large", "native", "bulk", 10.0, 1.0)
    return replace(made, **changes)  # type: ignore[arg-type]


async def test_the_same_is_booked_once_by_whoever_and_whenever(database: Database, usage: Usage) -> None:
    await booked(database, booking(1), booking(2))
    await asyncio.gather(*(booked(database, booking(2), booking(3)) for _ in range(4)))
    await usage.roll_up()
    await booked(database, booking(1))
    await usage.roll_up()
    report = await usage.report(SOMEBODY)
    assert (report.total.requests, report.total.audio_s) == (3, 30.0)


async def test_sums_are_the_same_whatever_was_added_up_and_forgotten_meanwhile(
    database: Database, usage: Usage, clock: Clock
) -> None:
    dice = random.Random(6)
    expected: dict[tuple[str, str], float] = {}
    for number in range(120):
        day, model = dice.randrange(10), dice.choice(["large", "small"])
        one = booking(number, at=NOON - day * DAY_S, model=model, audio_s=float(dice.randrange(1, 100)))
        await booked(database, one)
        key = (date.fromtimestamp(one.at).isoformat(), model)
        expected[key] = expected.get(key, 0.0) + one.audio_s
        if number % 10 == 3:
            await asyncio.gather(usage.roll_up(), usage.roll_up())
        if number % 20 == 5:
            await usage.forget()
    report = await usage.report(SOMEBODY, first=date(2026, 11, 1), by=("day", "model"))
    assert {(row.group["day"], row.group["model"]): row.audio_s for row in report.rows} == expected
    assert report.total.requests == 120
    assert report.total.cost == sum(
        (PRICES.per_minute.get(model, PRICES.per_minute["*"]) * Decimal(audio_s) / 60)
        for (_, model), audio_s in expected.items()
    )


async def test_a_report_is_of_one_tenant_and_of_what_was_asked_for(
    database: Database, usage: Usage, ledger: Ledger, clock: Clock
) -> None:
    ledger.book(heard())
    ledger.book(heard(replace(SOMEBODY, key_id=None, user_id=None), 15.0, door="native", model="small"))
    ledger.book(heard(replace(SOMEBODY, tenant="globex"), 600.0))
    await ledger.flush()
    clock.now += DAY_S
    ledger.book(heard(cached=True))
    await ledger.flush()

    by_key = await usage.report(SOMEBODY, by=("key", "door"))
    assert [(row.group, row.requests, row.cached, row.audio_s) for row in by_key.rows] == [
        ({"key": "", "door": "native"}, 1, 0, 15.0),
        ({"key": "key-1", "door": "openai"}, 2, 1, 60.0),
    ]
    assert by_key.total.latency_s == 2.0
    assert by_key.total.cost == Decimal("0.01025")
    one_day = await usage.report(SOMEBODY, first=date(2026, 11, 22), last=date(2026, 11, 22))
    assert [row.group["day"] for row in one_day.rows] == ["2026-11-22"]
    assert (await usage.report(SOMEBODY, door="native")).total.audio_s == 15.0
    assert (await usage.report(SOMEBODY, model="nothing")).total.requests == 0
    assert (await usage.report(replace(SOMEBODY, tenant="globex"))).total.audio_s == 600.0

    lines = as_csv(by_key).split("\r\n")
    assert lines[0] == "key,door,requests,cached,audio_seconds,latency_seconds,cost,currency"
    assert lines[2] == "key-1,openai,2,1,60.0,2.0,0.010000,EUR"


async def test_a_report_is_refused_without_the_scope_or_for_days_that_make_no_sense(usage: Usage) -> None:
    with pytest.raises(PermissionDenied):
        await usage.report(replace(SOMEBODY, scopes=frozenset({Scope.TRANSCRIBE})))
    with pytest.raises(InvalidRequest):
        await usage.report(SOMEBODY, first=date(2026, 11, 3), last=date(2026, 11, 2))


async def test_bookings_wait_for_a_database_that_is_away(
    database: Database, usage: Usage, ledger: Ledger
) -> None:
    database.refuse("it is away")
    for _ in range(3):
        ledger.book(heard())
        await ledger.flush()
    database.refuse(None)
    ledger.book(heard())
    await ledger.close()
    assert (await usage.report(SOMEBODY)).total.requests == 4


async def test_a_month_is_warned_of_then_refused_and_begins_anew(
    database: Database, ledger: Ledger, clock: Clock
) -> None:
    await booked(database, booking(1, audio_s=45.0), booking(2, audio_s=999.0, at=NOON - 30 * DAY_S))
    await ledger.look(SOMEBODY)
    (quota,) = ledger.quotas(SOMEBODY)
    assert (quota.used, quota.warning) == (0.75, None)
    ledger.check(SOMEBODY)
    ledger.book(heard(audio_s=30.0))
    ledger.check(SOMEBODY)
    (quota,) = ledger.quotas(SOMEBODY)
    assert quota.warning == "1.2 of 1 audio minutes of this month are used; 2 is the most"
    ledger.book(heard(audio_s=45.0))
    with pytest.raises(QuotaExceeded) as refused:
        ledger.check(SOMEBODY)
    december = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert refused.value.retry_after_s == december - NOON
    ledger.check(OWNER)
    clock.now = december
    await ledger.look(SOMEBODY)
    ledger.check(SOMEBODY)


async def test_what_other_processes_booked_counts(database: Database, clock: Clock) -> None:
    one, other = (Ledger(database, TIERS, Metrics("test"), clock=clock) for _ in range(2))
    one.book(heard(audio_s=150.0))
    await one.flush()
    await other.look(SOMEBODY)
    with pytest.raises(QuotaExceeded):
        other.check(SOMEBODY)


async def test_a_key_with_a_tier_of_its_own_has_less_than_its_tenant(ledger: Ledger) -> None:
    bounded = replace(SOMEBODY, key_tier="tiny")
    for caller in (bounded, SOMEBODY):
        await ledger.look(caller)
    ledger.book(heard(bounded, 60.0))
    with pytest.raises(QuotaExceeded):
        ledger.check(bounded)
    ledger.check(replace(SOMEBODY, key_id="key-2"))


async def test_a_database_that_is_away_holds_nobody_up(database: Database, ledger: Ledger) -> None:
    database.refuse("soon", soon=True)
    began = asyncio.get_running_loop().time()
    await ledger.look(SOMEBODY)
    assert asyncio.get_running_loop().time() - began < 2
    ledger.check(SOMEBODY)
    database.refuse(None)
    await ledger.close()


async def test_no_more_jobs_and_bytes_than_a_tier_has_are_accepted_however_many_ask_at_once(
    database: Database, tmp_path: Path
) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            text("INSERT INTO tenants (id, name, tier, created_at) VALUES ('acme', 'Acme', 'small', 0)")
        )
    tiers = Tiers({"small": Tier(queued_jobs=3, storage_bytes=1000), "tiny": Tier(queued_jobs=1)})
    async with job_house(database, MemoryBlobs(), tmp_path, vad=SileroModel(), tiers=tiers) as house:

        async def submitted(number: int, caller: Caller = SOMEBODY, size: int = 10) -> str:
            data = bytes([number]) * size
            source = AudioBytes((data,), hashlib.sha256(data).digest())
            try:
                job = (await house.intake.submit(JobRequest(source, TranscribeOptions(), caller=caller))).job
            except (RateLimited, QuotaExceeded) as error:
                return error.code
            return job.id

        bounded = replace(SOMEBODY, key_tier="tiny")
        assert (await submitted(0, bounded)).startswith("tr_")
        assert await submitted(1, bounded) == "rate_limited"
        found = await asyncio.gather(*(submitted(number) for number in range(2, 12)))
        assert sum(one.startswith("tr_") for one in found) == 2
        assert set(found) - {one for one in found if one.startswith("tr_")} == {"rate_limited"}
        for job_id in found:
            if job_id.startswith("tr_"):
                await house.jobs.cancel(SOMEBODY, job_id)
        assert await submitted(20, size=971) == "quota_exceeded"
        last = await submitted(21, size=970)
        assert last.startswith("tr_"), "as much as may be"
        await house.jobs.cancel(SOMEBODY, last)
        assert await submitted(22, size=1) == "quota_exceeded"
        assert (await submitted(21, size=970)).startswith("tr_"), "the same recording takes no more room"
        for number in range(5):
            assert (await submitted(30 + number, replace(OWNER, tenant="acme"))).startswith("tr_")


async def test_a_job_is_booked_with_its_end_and_not_again(
    database: Database, tmp_path: Path, usage: Usage, clock: Clock
) -> None:
    clip = next(path for path in sample_recordings() if path.stem == "beckett")
    async with job_house(database, MemoryBlobs(), tmp_path, vad=SileroModel()) as house:
        house.clock.ahead_s = NOON - house.clock()
        data = clip.read_bytes()
        source = AudioBytes((data,), hashlib.sha256(data).digest())
        request = JobRequest(source, TranscribeOptions(), caller=SOMEBODY, door="native")
        job = (await house.intake.submit(request)).job
        await house.intake.submit(replace(request, door=None))  # of the server's own
        house.start()
        async with asyncio.timeout(60):
            while (await house.jobs.show(SOMEBODY, job.id)).job.finished_at is None:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await house.stop()
    report = await usage.report(SOMEBODY, by=("key", "user", "model", "door", "class"))
    (row,) = report.rows
    assert dict(row.group) == {
        "key": "key-1",
        "user": "user-1",
        "model": "moonshine-tiny-en",
        "door": "native",
        "class": "bulk",
    } | {"model": row.group["model"]}
    assert (row.requests, round(row.audio_s)) == (1, 10)
    async with database.transaction() as connection:
        await rows.add(connection, [booking(0, id=job.id, audio_s=1.0)])
    async with database.reading() as connection:
        day = int(NOON // DAY_S)
        assert await rows.audio_s(connection, "acme", UsageFilter(day - 1, day + 1)) == row.audio_s


async def test_usage_is_told_over_http_as_json_and_as_csv(
    database: Database, usage: Usage, ledger: Ledger, tmp_path: Path
) -> None:
    ledger.book(heard(OWNER, 90.0, model="=large"))
    await ledger.flush()
    services = replace(scripted_services(ScriptedTranscriptions(), tmp_path), usage=usage)
    app = create_app(services, HttpConfig(tmp_path, "0"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        told = (await client.get("/v1/usage", params={"by": "model,class"})).raise_for_status().json()
        csv = await client.get("/v1/usage?by=model", headers={"Accept": "text/csv"})
        wrong = await client.get("/v1/usage", params={"by": "model,colour"})
        backwards = await client.get("/v1/usage", params={"from": "2026-11-02", "to": "2026-11-01"})
    await asyncio.to_thread(services.engines.close, 0)
    assert told == {
        "from": "2026-11-01",
        "to": "2026-11-21",
        "currency": "EUR",
        "total": {
            "requests": 1,
            "cached": 0,
            "audio_seconds": 90.0,
            "latency_seconds": 2.0,
            "cost": 0.0015,
        },
        "data": [
            {
                "model": "=large",
                "class": "interactive",
                "requests": 1,
                "cached": 0,
                "audio_seconds": 90.0,
                "latency_seconds": 2.0,
                "cost": 0.0015,
            }
        ],
    }
    assert csv.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert csv.headers["Content-Disposition"] == 'attachment; filename="usage-2026-11-01-2026-11-21.csv"'
    assert csv.text.splitlines()[1].startswith("'=large,1,0,90.0"), "no formula for a spreadsheet"
    assert (wrong.status_code, wrong.json()["error"]["field"]) == (422, "by")
    assert (backwards.status_code, backwards.json()["error"]["field"]) == (422, "from")
