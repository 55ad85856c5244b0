"""The audit log: who did what, from where. Entries are added in the transaction of what they tell of, and
never changed; `audit_chain` says how they hold together.

An entry has ids, names of fields and counts: no secret, nothing that was spoken, no name of a person.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from voiceforge.infra.db import audit as rows
from voiceforge.infra.db.audit import AuditChain, AuditEntry, AuditFilter
from voiceforge.infra.db.database import Database
from voiceforge.services.access import DEFAULT_TENANT, Caller, Role, Scope, trusted
from voiceforge.services.audit_chain import (
    CUT,
    FIRST_HASH,
    ChainCheck,
    Verdict,
    canonical,
    clean,
    clean_text,
    document,
    hash_of,
)
from voiceforge.services.chores import Chore
from voiceforge.telemetry.logger import Logger

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["COLUMNS", "Audit", "AuditEntry", "AuditFilter", "Verdict", "csv_line", "csv_row", "document"]

_MOST_LISTED = 101
_READ_AT_ONCE = 500
_BEFORE_ALL = -(2**62)
_TELL_HEADS_EVERY_S = 3600.0
_CUT_EVERY_S = 6 * 3600.0
_CUT_LEASE_S = 600.0
_LONGEST_ACTION = 60
_LONGEST_ID = 40
_LONGEST_ADDRESS = 64
_LONGEST_REQUEST_ID = 80

_FORMULAS = tuple("=+-@\t\r")
_SERVER = ("server", None)

_log = Logger(__name__)


async def record(
    connection: AsyncConnection,
    caller: Caller,
    action: str,
    target: str | None = None,
    *,
    tenant: str | None = None,
    at: float | None = None,
    **details: Any,
) -> AuditEntry:
    """Add an entry, which is there if what else is done in the transaction is. Until its end nobody else adds
    one for the tenant, so it comes last.

    Args:
        action: noun and what became of it, such as `webhook.removed`.
        target: the id of what it was done to.
        tenant: whose log; None: that of the caller's.
        at: Unix seconds; None: now.
        details: ids, counts, names of fields.
    """
    kind, actor = _who(caller)
    if caller.key_id is not None and caller.user_id is not None:
        details.setdefault("user", caller.user_id)
    return await _add(
        connection,
        tenant=tenant or caller.tenant,
        at=at,
        actor=(kind, actor),
        address=caller.address,
        request_id=caller.request_id,
        action=action,
        target=target,
        details=details,
    )


async def record_for_nobody(
    connection: AsyncConnection,
    action: str,
    target: str | None = None,
    *,
    tenant: str = DEFAULT_TENANT,
    address: str | None = None,
    at: float | None = None,
    **details: Any,
) -> AuditEntry:
    """As `record`, for what somebody does who is not known yet."""
    return await _add(
        connection,
        tenant=tenant,
        at=at,
        actor=("nobody", None),
        address=address,
        request_id=None,
        action=action,
        target=target,
        details=details,
    )


async def was_noted(connection: AsyncConnection, tenant: str, action: str, target: str) -> bool:
    """Whether the log has such an entry."""
    wanted = AuditFilter(actions=(action,), target=target)
    return bool(await rows.newest(connection, tenant, wanted, before=None, limit=1))


def reads_anothers(caller: Caller, author: str | None) -> bool:
    """Whether somebody who leads the tenant is about to see what another person had transcribed."""
    leads = caller.role in (Role.OWNER, Role.ADMIN) and _who(caller) != _SERVER
    return leads and author is not None and caller.user_id != author


async def _add(
    connection: AsyncConnection,
    *,
    tenant: str,
    at: float | None,
    actor: tuple[str, str | None],
    address: str | None,
    request_id: str | None,
    action: str,
    target: str | None,
    details: Mapping[str, object],
) -> AuditEntry:
    chain = await rows.lock_chain(connection, tenant, FIRST_HASH)
    new = AuditEntry(
        tenant=tenant,
        number=chain.number + 1,
        at=int((time.time() if at is None else at) * 1000) / 1000,
        actor_kind=actor[0],
        actor_id=_text(actor[1], _LONGEST_ID),
        address=_text(address, _LONGEST_ADDRESS),
        request_id=_text(request_id, _LONGEST_REQUEST_ID),
        action=clean_text(action, _LONGEST_ACTION),
        target=_text(target),
        details=clean(details),
        hash="",
    )
    entry = replace(new, hash=hash_of(new, chain.hash))
    await rows.add(connection, entry)
    return entry


def _who(caller: Caller) -> tuple[str, str | None]:
    if caller.key_id is not None:
        return "key", caller.key_id
    if caller.user_id is not None:
        return "user", caller.user_id
    # With the key of the settings, or where none is asked for; the server itself has no address.
    through_a_door = caller.address is not None or caller.request_id is not None
    return ("owner", None) if through_a_door else _SERVER


def _text(text: str | None, most: int = 255) -> str | None:
    return None if text is None else clean_text(text, most)


COLUMNS = (
    "number",
    "at",
    "actor_kind",
    "actor_id",
    "address",
    "request_id",
    "action",
    "target",
    "details",
    "previous",
    "hash",
)
"""Of an export as CSV."""


def csv_line(values: Sequence[object]) -> str:
    """A line, with its end. Nothing that a spreadsheet would take for a formula."""
    text = io.StringIO()
    shown = ("" if value is None else str(value) for value in values)
    csv.writer(text).writerow([f"'{value}" if value.startswith(_FORMULAS) else value for value in shown])
    return text.getvalue()


def csv_row(told: Mapping[str, Any]) -> str:
    """Of an entry's document, by `COLUMNS`."""
    flat = dict(told) | {
        "actor_kind": told["actor"]["kind"],
        "actor_id": told["actor"]["id"],
        "details": canonical(told["details"]).decode(),
    }
    return csv_line([flat[name] for name in COLUMNS])


class Audit:
    """What is done with the log as a whole.

    Args:
        keep_s: older entries are cut off; None: never.
        clock: Unix seconds.
    """

    def __init__(
        self, database: Database, *, keep_s: float | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._keep_s = keep_s
        self._clock = clock
        self._told: dict[str, int] = {}

    async def note(
        self, caller: Caller, action: str, target: str | None = None, **details: Any
    ) -> AuditEntry:
        """As `record`, of what no transaction of ours was part of.

        Raises:
            Unavailable
        """
        async with self._database.transaction() as connection:
            return await record(connection, caller, action, target, at=self._clock(), **details)

    async def note_once(self, action: str, *, within_s: float, **details: Any) -> bool:
        """What every process of a server sees, in the log of those who run it: unless the newest such entry
        tells the same and is so young. Whether it was noted.

        Raises:
            Unavailable
        """
        now = self._clock()
        async with self._database.transaction() as connection:
            await rows.lock_chain(connection, DEFAULT_TENANT, FIRST_HASH)
            wanted = AuditFilter(actions=(action,), since=now - within_s)
            told = await rows.newest(connection, DEFAULT_TENANT, wanted, before=None, limit=1)
            if told and told[0].details == clean(details):
                return False
            await record(connection, trusted(), action, at=now, **details)
            return True

    async def list(
        self,
        caller: Caller,
        wanted: AuditFilter = AuditFilter(),  # noqa: B008  # frozen
        *,
        before: int | None = None,
        limit: int = 20,
    ) -> Sequence[AuditEntry]:
        """The newest first, at most `limit` (up to 101) of those before the one with this number.

        Raises:
            PermissionDenied, Unavailable
        """
        tenant = caller.needs(Scope.AUDIT)
        async with self._database.reading() as connection:
            return await rows.newest(
                connection, tenant, wanted, before=before, limit=min(limit, _MOST_LISTED)
            )

    def export(
        self,
        caller: Caller,
        wanted: AuditFilter = AuditFilter(),  # noqa: B008  # frozen
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The documents of all entries that there are, in order. `previous` is None where the entry before
        is not among them.

        Raises:
            PermissionDenied, Unavailable
        """
        return self._exported(caller.needs(Scope.AUDIT), wanted)

    async def _exported(self, tenant: str, wanted: AuditFilter) -> AsyncGenerator[dict[str, Any], None]:
        chain = await self._chain(tenant)
        last, hashed = chain.cut_number, chain.cut_hash
        async for entry in self._following(tenant, wanted, last):
            yield document(entry, hashed if entry.number == last + 1 else None)
            last, hashed = entry.number, entry.hash

    async def verify(self, caller: Caller, anchors: Mapping[int, str] | None = None) -> Verdict:
        """Whether all entries of the tenant are there and as they were made; the first that is not.

        Args:
            anchors: hashes by number, as they were noted somewhere else: what was written anew from some
                entry on is found by them only.

        Raises:
            PermissionDenied, Unavailable
        """
        tenant = caller.needs(Scope.AUDIT)
        while True:
            begun = await self._chain(tenant)
            check = ChainCheck(begun, anchors or {})
            after = _BEFORE_ALL
            while True:
                async for entry in self._following(tenant, AuditFilter(), after):
                    if not check.see(entry):
                        break
                # Read last: an entry and the chain's end are written together, so none is behind it.
                now = await self._chain(tenant)
                if check.is_broken or after == check.number or check.number >= now.number:
                    break
                after = check.number
            if now.cut_number == begun.cut_number:  # else it was cut off while we read
                return check.verdict(now)

    async def _chain(self, tenant: str) -> AuditChain:
        async with self._database.reading() as connection:
            chain = await rows.chain_of(connection, tenant)
        return chain or AuditChain(tenant, 0, FIRST_HASH, 0, FIRST_HASH)

    async def _following(
        self, tenant: str, wanted: AuditFilter, after: int
    ) -> AsyncGenerator[AuditEntry, None]:
        """In order, behind the one with this number."""
        while True:
            async with self._database.reading() as connection:
                found = await rows.following(connection, tenant, wanted, after=after, limit=_READ_AT_ONCE)
            for entry in found:
                yield entry
            if len(found) < _READ_AT_ONCE:
                return
            after = found[-1].number

    def chores(self) -> tuple[Chore, ...]:
        """To be done by one process at a time."""
        return (
            Chore("tell_audit_heads", _TELL_HEADS_EVERY_S, self.tell_heads),
            Chore("cut_audit", _CUT_EVERY_S, self.cut_old, lease_s=_CUT_LEASE_S),
        )

    async def cut_old(self) -> int:
        """Cut off what is older than is to be kept, and tell so in the log; how many entries those were.

        Raises:
            Unavailable
        """
        if self._keep_s is None:
            return 0
        async with self._database.reading() as connection:
            tenants = [chain.tenant for chain in await rows.all_chains(connection)]
        return sum([await self._cut(tenant, self._clock() - self._keep_s) for tenant in tenants])

    async def _cut(self, tenant: str, before: float) -> int:
        async with self._database.reading() as connection:
            if await rows.last_before(connection, tenant, before) is None:
                return 0
        async with self._database.transaction() as connection:
            chain = await rows.lock_chain(connection, tenant, FIRST_HASH)
            last = await rows.last_before(connection, tenant, before)
            if last is None or last[0] <= chain.cut_number:
                return 0
            number, hashed = last
            count = await rows.cut(connection, tenant, number, hashed)
            await record(connection, trusted(tenant), CUT, at=self._clock(), number=number, hash=hashed)
        return count

    async def tell_heads(self) -> int:
        """Write the newest number and hash of each tenant into the server's own log, where they changed: who
        keeps those lines elsewhere can prove what was written when. How many it told.

        Raises:
            Unavailable
        """
        async with self._database.reading() as connection:
            chains = await rows.all_chains(connection)
        news = [chain for chain in chains if self._told.get(chain.tenant) != chain.number]
        for chain in news:
            _log.info("audit_head", tenant=chain.tenant, number=chain.number, hash=chain.hash)
            self._told[chain.tenant] = chain.number
        return len(news)
