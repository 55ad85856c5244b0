"""What ties the entries of the audit log together: each has a hash over all that stands in it and over the
hash of the one before.

An entry's document, without its hash, is written as JSON Canonicalization Scheme (RFC 8785) has it, so that
who has only an export can check it with whatever tools they trust.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from voiceforge.infra.db.audit import AuditChain, AuditEntry

FIRST_HASH = "0" * 64
"""Before the first entry of a tenant."""
CUT = "audit.cut"
_MOST_CHARS = 255
_MOST_ITEMS = 200
_MOST_EXACT = 2**53 - 1
"""Beyond, numbers of JSON are not the same everywhere."""


def document(entry: AuditEntry, previous: str | None) -> dict[str, Any]:
    """What is told of an entry. previous: the hash of the one before; None: that is not known."""
    return {
        "tenant": entry.tenant,
        "number": entry.number,
        "at": iso_ms(entry.at),
        "actor": {"kind": entry.actor_kind, "id": entry.actor_id},
        "address": entry.address,
        "request_id": entry.request_id,
        "action": entry.action,
        "target": entry.target,
        "details": dict(entry.details),
        "previous": previous,
        "hash": entry.hash,
    }


def hash_of(entry: AuditEntry, previous: str) -> str:
    """The hash that it should have."""
    hashed = document(entry, previous)
    del hashed["hash"]
    return hashlib.sha256(canonical(hashed)).hexdigest()


def canonical(value: object) -> bytes:
    """RFC 8785, for what `clean` lets through and keys of ASCII."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def iso_ms(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clean_text(text: str, most: int = _MOST_CHARS) -> str:
    """So that every database gives it back as it is."""
    return text[:most].encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def clean(value: object) -> Any:
    """Texts, whole numbers, truth values, lists and mappings of them: what is the same in every database.

    Raises:
        TypeError: it is something else, which no entry should hold.
    """
    match value:
        case None | bool():
            return value
        case str():
            return clean_text(str(value))
        case int() if abs(value) <= _MOST_EXACT:
            return int(value)
        case Mapping():
            return {clean_text(str(name)): clean(one) for name, one in list(value.items())[:_MOST_ITEMS]}
        case list() | tuple():
            return [clean(one) for one in value[:_MOST_ITEMS]]
        case set() | frozenset():
            return sorted(clean(one) for one in value)[:_MOST_ITEMS]
    raise TypeError(f"no entry of the audit log holds {type(value).__name__}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of looking through a chain.

    checked: entries that are as they were made. broken_at: the number of the first one that is not; None: all
    are. problem: what is wrong with it.
    """

    tenant: str
    checked: int
    head_number: int
    head_hash: str
    broken_at: int | None = None
    problem: str | None = None

    @property
    def whole(self) -> bool:
        return self.broken_at is None


class ChainCheck:
    """Is shown the entries of a tenant in order.

    Args:
        chain: how it stood before any of them was read.
        anchors: hashes by number, as they were noted somewhere else.
    """

    def __init__(self, chain: AuditChain, anchors: Mapping[int, str]) -> None:
        self._chain = chain
        self._anchors = dict(anchors)
        self._number = chain.cut_number
        self._hash = chain.cut_hash
        self._cut_told = chain.cut_number == 0
        self._checked = 0
        self._broken: tuple[int, str] | None = None

    @property
    def is_broken(self) -> bool:
        """One that was shown is not as it was made."""
        return self._broken is not None

    @property
    def number(self) -> int:
        """Of the last one that was shown, or cut off."""
        return self._number

    def see(self, entry: AuditEntry) -> bool:
        """Whether it is as it was made."""
        problem = self._problem_of(entry)
        if problem is not None:
            self._broken = (min(entry.number, self._number + 1), problem)
            return False
        if entry.action == CUT and entry.details.get("number") == self._chain.cut_number:
            self._cut_told = self._cut_told or entry.details.get("hash") == self._chain.cut_hash
        self._number, self._hash = entry.number, entry.hash
        self._checked += 1
        return True

    def _problem_of(self, entry: AuditEntry) -> str | None:
        if entry.number != self._number + 1:
            return "it is missing, or others were put before it"
        if entry.at != round(entry.at, 3) or entry.hash != hash_of(entry, self._hash):
            return "it is not what was written, or does not follow on the one before"
        if self._anchors.get(entry.number, entry.hash) != entry.hash:
            return "its hash is not the one that was noted elsewhere"
        return None

    def verdict(self, chain: AuditChain) -> Verdict:
        """Once all were shown, or one that is broken. chain: how it stands since."""
        broken = self._broken or self._problem_of_whole(chain)
        number, problem = broken or (None, None)
        return Verdict(chain.tenant, self._checked, self._number, self._hash, number, problem)

    def _problem_of_whole(self, chain: AuditChain) -> tuple[int, str] | None:
        if self._number < max(chain.number, *self._anchors, 0):
            return self._number + 1, "it is missing, and all after it"
        if self._number > chain.number:
            return chain.number + 1, "it was put behind the one that was written last"
        if self._hash != chain.hash:
            return self._number, "it is not the one that was written last"
        if not self._cut_told:
            return self._chain.cut_number, "nothing tells that what stood up to it was cut off"
        return None
