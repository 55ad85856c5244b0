"""Everything of a person or a tenant goes, wherever it lies, and nothing of anybody else."""

from __future__ import annotations

import json
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from sqlalchemy import insert, select, text

from voiceforge.errors import Conflict, NotFound, PermissionDenied
from voiceforge.infra.blobs.local_disk import LocalDiskBlobs
from voiceforge.infra.cache.memory import MemoryCache
from voiceforge.infra.db import tables_access as access
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.personal import STAYING
from voiceforge.infra.db.tables import batches, deliveries, events, metadata, uploads, webhooks
from voiceforge.services.access import Caller, Role, scopes_of, trusted
from voiceforge.services.audit import Audit
from voiceforge.services.job_intake import JobRequest
from voiceforge.services.personal_data import ErasedData, PersonalData
from voiceforge.services.result_cache import ResultCache
from voiceforge.services.retention import RetentionSweep
from voiceforge.services.samples import sample_recordings
from voiceforge.services.stream_keeper import StreamKeeper
from voiceforge.services.stream_spool import Spool, SpoolNote
from voiceforge.services.uploads import Uploads
from voiceforge.speech.engines.base import DecodeOptions, Hypothesis
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.transcript.types import ModelRef
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.fake_engine import says_by_length
from voiceforge.testing.job_house import JobHouse, job_house

BECKETT, _ = sample_recordings()
MODEL = ModelRef("moonshine-tiny-en", "1")


def owner_of(tenant: str) -> Caller:
    return Caller(
        tenant, Role.OWNER, scopes_of(Role.OWNER, tenant), user_id=f"us_boss_{tenant}", address="::1"
    )


@dataclass
class Planted:
    tenant: str
    user_id: str
    mark: str
    job_id: str


class Ground:
    """A database, a store, a cache and folders, with things of several people in them."""

    def __init__(self, house: JobHouse, folder: Path, blobs: LocalDiskBlobs, cache: ResultCache) -> None:
        self.house = house
        self.folder = folder
        self.cache = cache
        self.says = ""
        self.uploads = Uploads(
            database=house.database,
            folder=folder / "uploads",
            temp_dir=folder,
            max_bytes=1 << 24,
            clock=house.clock,
        )
        self.keeper = StreamKeeper(
            folder=folder / "streams",
            jobs=house.jobs,
            models=house.models,
            transcriptions=house.transcriptions,
            metrics=house.metrics,
            defaults=TranscribeOptions(),
            clock=house.clock,
        )
        self.data = PersonalData(
            database=house.database,
            blobs=blobs,
            jobs=house.jobs,
            uploads=self.uploads,
            retention=RetentionSweep(
                database=house.database, blobs=blobs, jobs=house.jobs, clock=house.clock
            ),
            results=cache,
            keeper=self.keeper,
            clock=house.clock,
        )
        self.audit = Audit(house.database, clock=house.clock)

    async def add_tenant(self, tenant: str, mark: str) -> None:
        async with self.house.database.transaction() as connection:
            await connection.execute(
                insert(access.tenants).values(id=tenant, name=mark, tier="pro", created_at=1.0)
            )
            await connection.execute(
                insert(access.users).values(
                    id=f"us_boss_{tenant}",
                    tenant=tenant,
                    email=f"boss@{tenant}.example",
                    role="owner",
                    created_at=1.0,
                )
            )
            await connection.execute(
                insert(webhooks).values(
                    id=f"wh_{tenant}",
                    tenant=tenant,
                    url=f"https://{mark}.example/",
                    event_types=[],
                    secrets=[{"secret": f"whsec_{mark}", "until": None}],
                    enabled=True,
                    created_at=1.0,
                )
            )

    async def plant(self, tenant: str, name: str, mark: str) -> Planted:
        """Something of a person everywhere that anything can be of them."""
        user_id = f"us_{name}"
        caller = Caller(tenant, Role.MEMBER, scopes_of(Role.MEMBER, tenant), user_id=user_id)
        recording = self.folder / f"{mark}.wav"
        recording.write_bytes(BECKETT.read_bytes() + mark.encode())
        self.says = mark
        submitted = await self.house.jobs.submit(
            JobRequest(
                recording,
                TranscribeOptions(keyterms=(mark,)),
                caller=caller,
                metadata={"note": mark},
                filename=f"{mark}.wav",
                callback_url=f"https://{mark}.example/called",
                idempotency_key=mark,
            )
        )
        job_id = submitted.job.id
        assert await self.house.runner.run(job_id)
        waiting = await self.house.jobs.submit(
            JobRequest(recording, TranscribeOptions(), caller=caller, metadata={"note": mark})
        )
        assert waiting.job.id != job_id
        upload = await self.uploads.create(caller, 100, metadata=mark, filename=mark)
        async with self.house.database.transaction() as connection:
            for table, row in self._rows(tenant, user_id, mark, job_id):
                await connection.execute(insert(table).values(tenant=tenant, **row))

        async def pieces() -> AsyncIterator[bytes]:
            yield mark.encode()

        await self.uploads.append(caller, upload.id, 0, pieces())
        note = SpoolNote(tenant, MODEL.id, TranscribeOptions(keyterms=(mark,)), user_id=user_id)
        spool = Spool.create(self.folder / "streams", f"st_{mark}", note)
        spool.release()
        transcript = await self.house.jobs.transcript(trusted(tenant), job_id)
        key = self.cache.key(tenant, mark.encode(), MODEL, TranscribeOptions())
        await self.cache.keep(key, transcript)
        recording.unlink(missing_ok=True)
        return Planted(tenant, user_id, mark, job_id)

    def _rows(self, tenant: str, user_id: str, mark: str, job_id: str) -> list[tuple[Any, dict[str, Any]]]:
        used = {
            "model": "m",
            "door": "native",
            "class": "bulk",
            "audio_s": 1.5,
            "latency_s": 0.5,
            "cached": 0,
        }
        return [
            (
                access.users,
                {
                    "id": user_id,
                    "email": f"{mark}@mail.example",
                    "name": mark,
                    "role": "member",
                    "created_at": 1.0,
                },
            ),
            (
                access.identities,
                {"issuer": "i", "subject": mark, "user_id": user_id, "created_at": 1.0},
            ),
            (
                access.sessions,
                {
                    "id": f"se_{mark}",
                    "user_id": user_id,
                    "refresh_hash": mark,
                    "created_at": 1.0,
                    "refreshed_at": 1.0,
                    "expires_at": 2.0,
                    "agent": mark,
                },
            ),
            (
                access.api_keys,
                {
                    "id": f"key_{mark}",
                    "user_id": user_id,
                    "role": "member",
                    "name": mark,
                    "hint": "vf_",
                    "hash": mark,
                    "scopes": [],
                    "created_at": 1.0,
                },
            ),
            (
                access.one_time_tokens,
                {
                    "hash": f"t_{mark}",
                    "purpose": "invite",
                    "data": {"email": f"{mark}@mail.example"},
                    "created_at": 1.0,
                    "expires_at": 2.0,
                },
            ),
            (
                batches,
                {
                    "id": f"bat_{mark}",
                    "metadata": {"note": mark},
                    "size": 0,
                    "refused": [],
                    "callback_url": f"https://{mark}.example",
                    "created_at": 1.0,
                    "user_id": user_id,
                },
            ),
            (
                events,
                {
                    "id": f"evt_{mark}",
                    "transcription_id": job_id,
                    "type": "test",
                    "data": {"note": mark},
                    "created_at": 1.0,
                },
            ),
            (
                deliveries,
                {
                    "id": f"dlv_{mark}",
                    "webhook_id": f"wh_{tenant}",
                    "event_id": f"evt_{mark}",
                    "url": f"https://{mark}.example",
                    "host": f"{mark}.example",
                    "status": "waiting",
                    "attempts": 0,
                    "available_at": 1.0,
                    "log": [],
                    "created_at": 1.0,
                },
            ),
            (
                access.usage,
                used
                | {
                    "booking": job_id,
                    "at": 86_400.0,
                    "day": 1,
                    "user_id": user_id,
                    "key_id": f"key_{mark}",
                    "rolled": 0,
                },
            ),
            (
                access.usage_days,
                used | {"day": 1, "user_id": user_id, "key_id": f"key_{mark}", "requests": 2},
            ),
        ]

    async def rows_with(self, *words: str) -> dict[str, list[str]]:
        """Of every table but the log, the rows in which one of these stands, also inside of bytes."""
        found = {}
        async with self.house.database.reading() as connection:
            for table in metadata.sorted_tables:
                if table.name in ("audit", "audit_chains"):
                    continue
                rows = [str(tuple(row)) for row in await connection.execute(select(table))]
                found[table.name] = sorted(row for row in rows if any(word in row for word in words))
        return found

    def files_with(self, mark: str, *, among: str = "**/*") -> list[str]:
        return [
            str(path.relative_to(self.folder))
            for path in self.folder.glob(among)
            if path.is_file() and (mark in path.name or mark.encode() in path.read_bytes())
        ]

    async def cached(self, planted: Planted) -> bool:
        key = self.cache.key(planted.tenant, planted.mark.encode(), MODEL, TranscribeOptions())
        return await self.cache.find(key) is not None

    async def found(self, planted: Planted) -> list[str]:
        """By the search."""
        hits = await self.house.jobs.search(trusted(planted.tenant), planted.mark)
        return [hit.view.job.id for hit in hits]


@pytest.fixture(scope="module")
def vad() -> SileroModel:
    return SileroModel()


@pytest_asyncio.fixture
async def ground(database: Database, tmp_path: Path, vad: SileroModel) -> AsyncIterator[Ground]:
    grounds: list[Ground] = []

    def says(window: np.ndarray, options: DecodeOptions) -> Hypothesis:
        first, *_ = says_by_length()(window, options).segments
        return Hypothesis((replace(first, text=f"So said {grounds[0].says}.", words=()),))

    blobs = LocalDiskBlobs(tmp_path / "blobs")

    async def anywhere(url: str) -> None:
        pass

    async with job_house(database, blobs, tmp_path, vad=vad, script=says, check_callback=anywhere) as house:
        cache = ResultCache(
            MemoryCache(1 << 20), recipe="", ttl_s=1000.0, max_entry_bytes=1 << 18, metrics=house.metrics
        )
        made = Ground(house, tmp_path, blobs, cache)
        grounds.append(made)
        yield made
        await made.keeper.close()


ALPHA, BRAVO, SHARED = "alphamark7f3", "bravomark9c1", "sharedmark5e2"


async def nothing_is_left(ground: Ground, gone: Planted, *, sqlite_files: bool) -> None:
    left = await ground.rows_with(gone.mark, gone.user_id)
    assert not any(left.values()), left
    assert ground.files_with(gone.mark, among="blobs/**/*") == []
    assert ground.files_with(gone.mark, among="uploads/*") == []
    assert ground.files_with(gone.mark, among="streams/*") == []
    assert not await ground.cached(gone)
    assert await ground.found(gone) == []
    if sqlite_files:  # neither in free pages nor in the log of what was written
        assert ground.files_with(gone.mark, among="jobs.db*") == []
    async with ground.house.database.reading() as connection:
        log = str([tuple(row) for row in await connection.execute(text("SELECT * FROM audit"))])
    assert gone.mark not in log


async def test_a_person_is_erased_and_everybody_else_is_whole(ground: Ground) -> None:
    await ground.add_tenant("acme", SHARED)
    gone = await ground.plant("acme", "alice", ALPHA)
    stays = await ground.plant("acme", "bob", BRAVO)
    of_others = await ground.rows_with(BRAVO, stays.user_id, "us_boss_acme", SHARED)
    assert all(
        len(rows) > 0
        for name, rows in (await ground.rows_with(ALPHA, gone.user_id)).items()
        if name not in ("tenants", "webhooks", "chores", "signing_keys", "chunks", "recordings")
    )
    assert ground.files_with(ALPHA, among="uploads/*")
    assert ground.files_with(ALPHA, among="blobs/**/*")

    erased = await ground.data.erase_person(owner_of("acme"), gone.user_id)

    assert erased == ErasedData(transcriptions=2, batches=1, uploads=1, streams=1, person=True)
    await nothing_is_left(ground, gone, sqlite_files=ground.house.database.is_sqlite)
    assert await ground.rows_with(BRAVO, stays.user_id, "us_boss_acme", SHARED) == of_others
    assert await ground.found(stays) == [stays.job_id]
    assert ground.files_with(BRAVO, among="blobs/**/*")
    assert ground.files_with(BRAVO, among="streams/*")
    (entry,) = await ground.audit.list(owner_of("acme"), limit=1)
    assert (entry.action, entry.target, entry.actor_id) == ("person.erased", gone.user_id, "us_boss_acme")
    assert entry.details["transcriptions"] == 2
    async with ground.house.database.reading() as connection:
        days = (
            await connection.execute(select(access.usage_days).where(access.usage_days.c.user_id == ""))
        ).one()
        rows = (await connection.execute(select(access.usage).where(access.usage.c.user_id.is_(None)))).all()
    assert (days.requests, days.audio_s, len(rows)) == (2, 1.5, 1)

    again = await ground.data.erase_person(owner_of("acme"), gone.user_id)
    assert again == ErasedData()
    assert (await ground.audit.verify(owner_of("acme"))).whole


async def test_a_tenant_is_erased_and_the_others_are_whole(ground: Ground) -> None:
    await ground.add_tenant("acme", ALPHA)
    await ground.add_tenant("other", BRAVO)
    gone = await ground.plant("acme", "alice", ALPHA)
    stays = await ground.plant("other", "bob", BRAVO)
    of_others = await ground.rows_with(BRAVO, "'other'")

    erased = await ground.data.erase_tenant(owner_of("acme"), "acme")

    assert (erased.transcriptions, erased.uploads, erased.streams, erased.person) == (2, 1, 1, True)
    await nothing_is_left(ground, gone, sqlite_files=ground.house.database.is_sqlite)
    assert not any((await ground.rows_with("'acme'")).values())
    assert await ground.rows_with(BRAVO, "'other'") == of_others
    assert await ground.found(stays) == [stays.job_id]
    assert await ground.cached(stays)
    for among in ("blobs/**/*", "uploads/*", "streams/*"):
        assert ground.files_with(BRAVO, among=among), among
    (entry,) = await ground.audit.list(trusted("acme"), limit=1)
    assert (entry.action, entry.target) == ("tenant.erased", "acme")
    assert (await ground.data.erase_tenant(trusted("acme"), "acme")) == ErasedData()


async def exported(pieces: AsyncIterator[bytes]) -> dict[str, bytes]:
    whole = b"".join([piece async for piece in pieces])
    with tarfile.open(fileobj=BytesIO(whole), mode="r:") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


async def test_what_a_person_is_given_is_theirs_whole_and_without_secrets(ground: Ground) -> None:
    await ground.add_tenant("acme", SHARED)
    theirs = await ground.plant("acme", "alice", ALPHA)
    await ground.plant("acme", "bob", BRAVO)
    files = await exported(await ground.data.export_person(owner_of("acme"), theirs.user_id, audio=True))
    told = b"".join(files.values())
    assert BRAVO.encode() not in told
    assert f"So said {ALPHA}." in json.loads(files[f"transcripts/{theirs.job_id}.json"])["text"]
    assert {name.partition("/")[0] for name in files} == {
        "users",
        "identities",
        "sessions",
        "api_keys",
        "batches",
        "transcriptions",
        "transcripts",
        "audio",
        "events",
        "deliveries",
        "uploads",
        "usage",
        "usage_days",
    }
    (audio,) = (content for name, content in files.items() if name.startswith("audio/"))
    assert audio == BECKETT.read_bytes() + ALPHA.encode()
    for secret in (b'"hash"', b'"refresh_hash"', b'"password_hash"', b'"secrets"'):
        assert secret not in told
    without = await exported(await ground.data.export_person(owner_of("acme"), theirs.user_id))
    assert not any(name.startswith("audio/") for name in without)

    whole = await exported(await ground.data.export_tenant(owner_of("acme"), "acme"))
    everything = b"".join(whole.values())
    assert all(mark.encode() in everything for mark in (ALPHA, BRAVO, SHARED))
    assert b"whsec_" not in everything
    assert [entry.action for entry in await ground.audit.list(owner_of("acme"), limit=2)] == [
        "tenant.exported",
        "person.exported",
    ]
    with pytest.raises(NotFound):
        await ground.data.export_person(owner_of("acme"), "us_nobody")
    with pytest.raises(NotFound):
        await ground.data.export_tenant(owner_of("acme"), "default")


async def test_who_may_erase_whom(ground: Ground) -> None:
    await ground.add_tenant("acme", "a")
    await ground.add_tenant("other", "b")
    admin = Caller("acme", Role.ADMIN, scopes_of(Role.ADMIN, "acme"))
    with pytest.raises(PermissionDenied):
        await ground.data.erase_person(admin, "us_boss_acme")
    with pytest.raises(NotFound):
        await ground.data.erase_tenant(owner_of("acme"), "other")
    with pytest.raises(Conflict):
        await ground.data.erase_person(owner_of("acme"), "us_boss_acme")
    for nobody_of_theirs in ("us_boss_other", "us_nobody"):
        with pytest.raises(NotFound):
            await ground.data.erase_person(owner_of("acme"), nobody_of_theirs)
    with pytest.raises(NotFound):
        await ground.data.erase_tenant(trusted(), "nobodys")
    async with ground.house.database.reading() as connection:
        assert len((await connection.execute(select(access.users))).all()) == 2
    await ground.data.erase_tenant(trusted(), "other")
    async with ground.house.database.reading() as connection:
        assert [row.id for row in await connection.execute(select(access.users))] == ["us_boss_acme"]
    (entry,) = await ground.audit.list(trusted(), limit=1)
    assert (entry.action, entry.target) == ("tenant.erased", "other")


async def test_the_tenant_that_runs_the_server_keeps_who_may_come_in(ground: Ground) -> None:
    async with ground.house.database.transaction() as connection:
        await connection.execute(
            insert(access.users).values(
                id="us_root", tenant="default", email="root@x.example", role="owner", created_at=1.0
            )
        )
        await connection.execute(
            insert(uploads).values(
                id="up_1",
                tenant="default",
                length_bytes=1,
                offset_bytes=0,
                metadata=ALPHA,
                created_at=1.0,
                expires_at=9e9,
            )
        )
    await ground.data.erase_tenant(trusted(), "default")
    left = await ground.rows_with("default", ALPHA)
    assert {name for name, rows in left.items() if rows} == {"tenants", "users"}


def test_every_table_of_tenants_is_known_to_erasing() -> None:
    """A new one is erased with its tenant by itself; whether it names people is to be asked."""
    naming = {table.name for table in metadata.sorted_tables if "user_id" in table.c}
    assert naming == {
        "identities",
        "sessions",
        "api_keys",
        "one_time_tokens",
        "usage",
        "usage_days",
        "transcriptions",
        "batches",
        "uploads",
    }
    assert {table.name for table in metadata.sorted_tables} > STAYING
