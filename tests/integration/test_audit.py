"""The audit log on SQLite and PostgreSQL: nothing that was written can be changed unnoticed."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from voiceforge.errors import PermissionDenied
from voiceforge.infra.db.database import Database
from voiceforge.main.audit import note_start
from voiceforge.main.settings import Settings
from voiceforge.main.settings_auth import AuthSettings
from voiceforge.services.access import Caller, Role, scopes_of, trusted
from voiceforge.services.audit import Audit, AuditFilter, record, record_for_nobody
from voiceforge.services.refused_tries import RefusedTries

ADMIN = Caller(
    "acme",
    Role.ADMIN,
    scopes_of(Role.ADMIN, "acme"),
    user_id="us_1",
    address="192.0.2.7",
    request_id="r-1",
)
OTHER = trusted("other")


async def write(database: Database, count: int, caller: Caller = ADMIN, at: float = 1_763_700_000.0) -> None:
    for number in range(count):
        async with database.transaction() as connection:
            await record(connection, caller, "thing.done", f"th_{number}", at=at + number, count=number)


async def tamper(database: Database, statement: str, **values: Any) -> None:
    async with database.transaction() as connection:
        await connection.execute(text(statement), values)


async def test_an_entry_says_who_did_what_from_where(database: Database) -> None:
    key = Caller("acme", Role.SERVICE, frozenset(), key_id="key_1", user_id="us_2", address="192.0.2.8")
    async with database.transaction() as connection:
        await record(connection, ADMIN, "webhook.changed", "wh_1", fields=("url", "enabled"), at=12.3456)
        await record(connection, key, "batch.erased", "bat_1")
        await record(connection, trusted("acme"), "swept")
        await record_for_nobody(connection, "sign_in.refused", tenant="acme", address="::1", count=3)
    refused, swept, erased, changed = await Audit(database).list(ADMIN)
    assert (changed.number, changed.at, changed.actor_kind, changed.actor_id) == (1, 12.345, "user", "us_1")
    assert (changed.address, changed.request_id, changed.target) == ("192.0.2.7", "r-1", "wh_1")
    assert changed.details == {"fields": ["url", "enabled"]}
    assert (erased.actor_kind, erased.actor_id, erased.details) == ("key", "key_1", {"user": "us_2"})
    assert (swept.actor_kind, swept.actor_id) == ("server", None)
    assert (refused.actor_kind, refused.address, refused.details) == ("nobody", "::1", {"count": 3})


async def test_what_is_undone_leaves_no_entry_and_no_gap(database: Database) -> None:
    await write(database, 1)

    async def fail() -> None:
        async with database.transaction() as connection:
            await record(connection, ADMIN, "thing.done")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await write(database, 1)
    assert [entry.number for entry in await Audit(database).list(ADMIN)] == [2, 1]
    assert (await Audit(database).verify(ADMIN)).whole


async def test_many_at_once_make_one_chain_each_tenant(database: Database, database_url: str) -> None:
    beside = Database(database_url)
    try:
        await asyncio.gather(
            *(write(where, 10, who) for where in (database, beside) for who in (ADMIN, ADMIN, OTHER))
        )
    finally:
        await beside.close()
    audit = Audit(database)
    for caller, count in ((ADMIN, 40), (OTHER, 20)):
        verdict = await audit.verify(caller)
        assert verdict.whole
        assert (verdict.checked, verdict.head_number) == (count, count)


@pytest.mark.parametrize(
    ("statement", "broken_at"),
    [
        ("UPDATE audit SET action = 'thing.else' WHERE tenant = 'acme' AND number = 3", 3),
        ("UPDATE audit SET actor_id = NULL WHERE tenant = 'acme' AND number = 3", 3),
        ("UPDATE audit SET at = at + 0.0001 WHERE tenant = 'acme' AND number = 3", 3),
        ("UPDATE audit SET details = '{}' WHERE tenant = 'acme' AND number = 5", 5),
        ("DELETE FROM audit WHERE tenant = 'acme' AND number = 1", 1),
        ("DELETE FROM audit WHERE tenant = 'acme' AND number = 3", 3),
        ("DELETE FROM audit WHERE tenant = 'acme' AND number = 5", 5),
        ("DELETE FROM audit WHERE tenant = 'acme' AND number > 2", 3),
        ("DELETE FROM audit WHERE tenant = 'acme'", 1),
        # Moved together to close the gap.
        (
            "DELETE FROM audit WHERE tenant = 'acme' AND number = 3;"
            "UPDATE audit SET number = number - 1 WHERE tenant = 'acme' AND number > 3",
            3,
        ),
        # Put between, and behind.
        (
            "UPDATE audit SET number = number + 1001 WHERE tenant = 'acme' AND number >= 3;"
            "UPDATE audit SET number = number - 1000 WHERE tenant = 'acme' AND number > 1000;"
            "INSERT INTO audit (tenant, number, at, actor_kind, action, details, hash)"
            " SELECT tenant, 3, at, actor_kind, action, details, hash FROM audit"
            " WHERE tenant = 'acme' AND number = 2",
            3,
        ),
        (
            "INSERT INTO audit (tenant, number, at, actor_kind, action, details, hash)"
            " SELECT tenant, 6, at, actor_kind, action, details, hash FROM audit"
            " WHERE tenant = 'acme' AND number = 5",
            6,
        ),
        # Two change places, and one comes from another tenant.
        (
            "UPDATE audit SET number = 1000 WHERE tenant = 'acme' AND number = 2;"
            "UPDATE audit SET number = 2 WHERE tenant = 'acme' AND number = 3;"
            "UPDATE audit SET number = 3 WHERE tenant = 'acme' AND number = 1000",
            2,
        ),
        (
            "DELETE FROM audit WHERE tenant = 'acme' AND number = 1;"
            "UPDATE audit SET tenant = 'acme' WHERE tenant = 'other' AND number = 1",
            1,
        ),
        # As if it had been cut off by policy.
        (
            "UPDATE audit_chains SET cut_number = 2,"
            " cut_hash = (SELECT hash FROM audit WHERE tenant = 'acme' AND number = 2)"
            " WHERE tenant = 'acme'; DELETE FROM audit WHERE tenant = 'acme' AND number <= 2",
            2,
        ),
    ],
)
async def test_the_first_entry_that_was_tampered_with_is_found(
    database: Database, statement: str, broken_at: int
) -> None:
    await write(database, 5)
    await write(database, 2, OTHER)
    assert (await Audit(database).verify(ADMIN)).whole
    for one in statement.split(";"):
        await tamper(database, one)
    verdict = await Audit(database).verify(ADMIN)
    assert not verdict.whole
    assert verdict.broken_at == broken_at
    assert verdict.problem


async def test_a_chain_that_was_written_anew_is_found_by_what_was_noted_elsewhere(database: Database) -> None:
    audit = Audit(database)
    await write(database, 4)
    noted = {entry.number: entry.hash for entry in await audit.list(ADMIN)}
    await tamper(database, "DELETE FROM audit WHERE tenant = 'acme'")
    await tamper(database, "DELETE FROM audit_chains WHERE tenant = 'acme'")
    await write(database, 3, at=1_763_700_001.0)
    assert (await audit.verify(ADMIN)).whole
    assert (await audit.verify(ADMIN, {2: noted[2]})).broken_at == 2
    assert (await audit.verify(ADMIN, {4: noted[4]})).broken_at == 4


async def test_old_entries_are_cut_off_and_the_rest_holds(database: Database) -> None:
    at = 1_763_700_000.0
    await write(database, 6, at=at)
    await write(database, 2, OTHER, at=at + 1000)
    audit = Audit(database, keep_s=100.0, clock=lambda: at + 103.0)
    assert await audit.cut_old() == 3
    newest, *_, oldest = await audit.list(ADMIN)
    assert (newest.action, newest.actor_kind, newest.details["number"]) == ("audit.cut", "server", 3)
    assert oldest.number == 4
    assert (await audit.verify(ADMIN)).whole
    assert (await audit.verify(OTHER)).checked == 2
    assert await audit.cut_old() == 0
    await tamper(database, "UPDATE audit SET target = NULL WHERE tenant = 'acme' AND number = 4")
    assert (await audit.verify(ADMIN)).broken_at == 4


async def test_a_chain_goes_on_after_all_of_it_was_cut_off_twice(database: Database) -> None:
    now = 1_763_700_000.0
    await write(database, 2, at=now)
    audit = Audit(database, keep_s=100.0, clock=lambda: now)
    for count in (2, 1):
        now += 1000.0
        assert await audit.cut_old() == count
        verdict = await audit.verify(ADMIN)
        assert (verdict.whole, verdict.checked) == (True, 1)
    await write(database, 1)
    assert (await audit.verify(ADMIN)).head_number == 5


async def test_an_export_can_be_checked_with_nothing_but_a_hash_function(database: Database) -> None:
    await write(database, 3)
    async with database.transaction() as connection:
        await record(
            connection,
            ADMIN,
            "thing.renamed",
            "Zoë\0\ud800 \U0001f600",
            names={"b": [1, True, None], "a": '\\"\n'},
        )
    before = "0" * 64
    count = 0
    async for line in Audit(database).export(ADMIN):
        told = json.loads(json.dumps(line))
        hashed = told.pop("hash")
        assert told["previous"] == before
        plain = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(plain.encode()).hexdigest() == hashed
        before = hashed
        count += 1
    assert count == 4


async def test_entries_are_found_by_what_they_tell(database: Database) -> None:
    async with database.transaction() as connection:
        for at, action in enumerate(("key.created", "key.revoked", "keyhole.found", "user.removed")):
            await record(connection, ADMIN, action, f"id_{at}", at=100.0 + at)
    audit = Audit(database)

    async def numbers(wanted: AuditFilter, before: int | None = None, limit: int = 20) -> list[int]:
        return [entry.number for entry in await audit.list(ADMIN, wanted, before=before, limit=limit)]

    assert await numbers(AuditFilter(actions=("key.",))) == [2, 1]
    assert await numbers(AuditFilter(actions=("key.created", "user.removed"))) == [4, 1]
    assert await numbers(AuditFilter(target="id_2")) == [3]
    assert await numbers(AuditFilter(actor_id="us_1"), before=4, limit=2) == [3, 2]
    assert await numbers(AuditFilter(actor_id="us_2")) == []
    assert await numbers(AuditFilter(since=101.0, until=103.0)) == [3, 2]
    filtered = [line async for line in audit.export(ADMIN, AuditFilter(actions=("keyhole.found",)))]
    assert [(line["number"], line["previous"]) for line in filtered] == [(3, None)]


async def test_only_who_may_reads_the_log_and_only_their_own(database: Database) -> None:
    await write(database, 1)
    member = Caller("acme", Role.MEMBER, scopes_of(Role.MEMBER, "acme"))
    with pytest.raises(PermissionDenied):
        await Audit(database).list(member)
    with pytest.raises(PermissionDenied):
        await Audit(database).verify(member)
    assert await Audit(database).list(OTHER) == []


async def test_heads_are_told_where_they_changed(database: Database) -> None:
    audit = Audit(database)
    await write(database, 2)
    await write(database, 1, OTHER)
    assert await audit.tell_heads() == 2
    assert await audit.tell_heads() == 0
    await write(database, 1)
    assert await audit.tell_heads() == 1


async def test_refused_tries_are_bounded_in_entries_and_lose_no_count(database: Database) -> None:
    refused = RefusedTries(database)
    assert await refused.tell() == 0
    for number in range(3000):
        refused.add(f"2001:db8::{number:x}", "invalid_api_key")
    for _ in range(5):
        refused.add("192.0.2.1", "expired_credential")
        refused.add("2001:db8::7", "invalid_api_key")
    assert await refused.tell() == 21
    told = await Audit(database).list(trusted(), limit=100)
    assert (told[-1].address, told[-1].details) == ("2001:db8::7", {"code": "invalid_api_key", "count": 6})
    assert told[0].details["code"] == "several"
    assert sum(entry.details["count"] for entry in told) == 3010
    assert await refused.tell() == 0


async def test_what_every_process_sees_is_noted_once(database: Database, database_url: str) -> None:
    now = 1_763_700_000.0
    audits = [Audit(database, clock=lambda: now) for _ in range(2)]
    settings = Settings(api_key=SecretStr("a-key-of-mine"), data_dir=Path("/nowhere"))
    started = settings.model_copy(update={"auth": AuthSettings(secret=SecretStr("s" * 32))})
    await asyncio.gather(*(note_start(started, audit) for audit in audits for _ in range(2)))
    (entry,) = await audits[0].list(trusted())
    assert (entry.action, entry.actor_kind) == ("server.started", "server")
    assert entry.details["settings"] == ["api_key", "auth.secret", "data_dir"]
    assert "a-key-of-mine" not in str(entry)
    other = started.model_copy(update={"api_key": SecretStr("another-key")})
    await note_start(other, audits[0])
    now += 61.0
    await note_start(other, audits[0])
    newest, before, first = await audits[0].list(trusted())
    assert newest.details == before.details
    assert before.details["hash"] != first.details["hash"]
