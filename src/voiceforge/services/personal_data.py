"""Everything of one person, or of a whole tenant, wherever it lies: given to them, or erased.

Each step may be repeated: what broke off goes on with another call, and a call where nothing is left does
nothing. The audit log keeps that it was done, with ids that then mean nobody.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from voiceforge.errors import Conflict, NotFound
from voiceforge.infra.blobs.base import Blobs
from voiceforge.infra.db import personal, tenants, users
from voiceforge.infra.db.database import Database
from voiceforge.services.access import DEFAULT_TENANT, Caller, Role, Scope, trusted
from voiceforge.services.audit import record, was_noted
from voiceforge.services.jobs import Jobs
from voiceforge.services.personal_export import tar_of
from voiceforge.services.result_cache import ResultCache
from voiceforge.services.retention import RetentionSweep
from voiceforge.services.uploads import Uploads
from voiceforge.telemetry.logger import Logger

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from voiceforge.services.stream_keeper import StreamKeeper

__all__ = ["ErasedData", "PersonalData"]

_AT_ONCE = 50
_PERSON, _TENANT = "person.erased", "tenant.erased"

_log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class ErasedData:
    """How many there were. streams: that were left behind, on this machine. rows: of a tenant, besides.
    person: there was somebody, or a tenant, of that id."""

    transcriptions: int = 0
    batches: int = 0
    uploads: int = 0
    streams: int = 0
    rows: int = 0
    person: bool = False


class PersonalData:
    """Args:
    results: None: nothing is cached in this process.
    keeper: of streams; None: there are none in this process.
    clock: Unix seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        blobs: Blobs,
        jobs: Jobs,
        uploads: Uploads,
        retention: RetentionSweep,
        results: ResultCache | None = None,
        keeper: StreamKeeper | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._jobs = jobs
        self._uploads = uploads
        self._retention = retention
        self._results = results
        self._keeper = keeper
        self._clock = clock

    async def export_person(
        self, caller: Caller, user_id: str, *, audio: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """A tar file with all of them that the tenant has, as it is read.

        Raises:
            PermissionDenied, NotFound, Unavailable
        """
        tenant = caller.needs(Scope.DATA)
        async with self._database.transaction() as connection:
            known = await users.get(connection, tenant, user_id) is not None
            if not known and not await personal.some_jobs(connection, tenant, user_id, 1):
                raise NotFound("there is no such user")
            await record(connection, caller, "person.exported", user_id, at=self._clock(), audio=audio)
        return tar_of(self._database, self._blobs, tenant, user_id, audio=audio)

    async def export_tenant(
        self, caller: Caller, tenant: str, *, audio: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Likewise, of everybody and everything of a tenant.

        Raises:
            PermissionDenied, NotFound, Unavailable
        """
        own = caller.needs(Scope.DATA)
        if tenant != own and Scope.TENANTS not in caller.scopes:
            raise NotFound("there is no such tenant")
        async with self._database.transaction() as connection:
            if await tenants.get(connection, tenant) is None:
                raise NotFound("there is no such tenant")
            for log in sorted({own, tenant}):
                await record(
                    connection, caller, "tenant.exported", tenant, tenant=log, at=self._clock(), audio=audio
                )
        return tar_of(self._database, self._blobs, tenant, None, audio=audio)

    async def erase_person(self, caller: Caller, user_id: str) -> ErasedData:
        """What they had transcribed, their uploads, their account and their keys. What they used stays in the
        sums, as nobody's own.

        Raises:
            PermissionDenied
            NotFound: there is nothing of such a person, and nobody has erased it.
            Conflict: nobody would own the tenant any more.
            Unavailable, StorageFull: some of it may be gone; ask again.
        """
        tenant = caller.needs(Scope.DATA)
        async with self._database.transaction() as connection:
            await self._check_owners(connection, tenant, user_id)
        jobs = await self._erase_jobs(tenant, user_id)
        uploads = await self._erase_uploads(tenant, user_id)
        streams = await self._erase_streams(tenant, user_id)
        async with self._database.transaction() as connection:
            await self._check_owners(connection, tenant, user_id)
            batches = await personal.forget_batches(connection, tenant, user_id)
            user = await users.get(connection, tenant, user_id)
            keys = await personal.key_ids(connection, tenant, user_id)
            await personal.unname_usage(connection, tenant, user_id, keys)
            if user is not None:
                await personal.forget_tokens(connection, tenant, user.email)
                await users.remove(connection, user_id)
            erased = ErasedData(jobs, batches, uploads, streams, person=user is not None)
            if erased == ErasedData() and not await was_noted(connection, tenant, _PERSON, user_id):
                raise NotFound("there is no such user")
            await record(connection, caller, _PERSON, user_id, at=self._clock(), **_told(erased))
        await self._clear(tenant)
        return erased

    async def erase_tenant(self, caller: Caller, tenant: str) -> ErasedData:
        """All that is a tenant's, with its people and keys; nobody of it comes in from now on. The one that
        runs the server keeps those.

        Raises:
            PermissionDenied
            NotFound: it is not the caller's, who does not run the server; or there is nothing of it, and
                nobody has erased it.
            Unavailable, StorageFull: some of it may be gone; ask again.
        """
        own = caller.needs(Scope.DATA)
        if tenant != own and Scope.TENANTS not in caller.scopes:
            raise NotFound("there is no such tenant")
        whole = tenant != DEFAULT_TENANT
        if whole:
            async with self._database.transaction() as connection:
                await personal.shut_out(connection, tenant, self._clock())
        jobs = await self._erase_jobs(tenant, None)
        uploads = await self._erase_uploads(tenant, None)
        streams = await self._erase_streams(tenant, None)
        async with self._database.transaction() as connection:
            await personal.begin_erasing_recordings(connection, tenant)
            known = await tenants.get(connection, tenant) is not None
            rows = await personal.forget_rows(connection, tenant, with_people=whole)
            if whole:
                await personal.forget_tenant(connection, tenant)
            erased = ErasedData(jobs, 0, uploads, streams, rows, person=known)
            if erased == ErasedData() and not await was_noted(connection, tenant, _TENANT, tenant):
                raise NotFound("there is no such tenant")
            for log in sorted({own, tenant}):
                await record(
                    connection, caller, _TENANT, tenant, tenant=log, at=self._clock(), **_told(erased)
                )
        await self._clear(tenant)
        return erased

    async def _check_owners(self, connection: AsyncConnection, tenant: str, user_id: str) -> None:
        await users.lock_tenant(connection, tenant)
        user = await users.get(connection, tenant, user_id)
        leads = user is not None and user.role == Role.OWNER and user.disabled_at is None
        if leads and await users.count_owners(connection, tenant) == 1:
            raise Conflict("nobody else owns this tenant: make another owner first, or erase the tenant")

    async def _erase_jobs(self, tenant: str, user_id: str | None) -> int:
        count = 0
        while True:
            async with self._database.transaction() as connection:
                jobs = await personal.some_jobs(connection, tenant, user_id, _AT_ONCE)
                for job in jobs:
                    await self._jobs.forget(connection, job)
            if not jobs:
                return count
            count += len(jobs)

    async def _erase_uploads(self, tenant: str, user_id: str | None) -> int:
        async with self._database.reading() as connection:
            found = await personal.upload_ids(connection, tenant, user_id)
        for upload_id in found:
            await self._uploads.forget(upload_id)
        return len(found)

    async def _erase_streams(self, tenant: str, user_id: str | None) -> int:
        return 0 if self._keeper is None else await self._keeper.erase(tenant, user_id)

    async def _clear(self, tenant: str) -> None:
        """What was removed from the database goes from the store, the cache and the files of SQLite too."""
        while await self._jobs.remove_erased():
            pass
        if self._results is not None:
            await self._results.clear(trusted(tenant))
        await self._retention.clear_search_index()
        await self._database.clear_log()


def _told(erased: ErasedData) -> dict[str, Any]:
    return {name: value for name, value in asdict(erased).items() if value}
