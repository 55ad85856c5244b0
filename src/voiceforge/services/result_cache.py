"""Results of earlier requests: which request may have which result, and what is known of both.

A key holds everything that can change a result; the cache behind sees digests and bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import TypeVar, cast

from voiceforge.errors import Unavailable
from voiceforge.infra.cache.base import Cache, CacheKey, CacheRefused, CacheUnreachable
from voiceforge.services.access import Caller, Scope
from voiceforge.services.result_codec import ResultCodec, UnreadableResult
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.transcript.types import ModelRef, Transcript
from voiceforge.telemetry.logger import Logger
from voiceforge.telemetry.metrics import CacheOutcome, Metrics

CACHE_NAME = "results"
# Beyond, packing and unpacking would hold up the event loop for more than a millisecond.
_LARGE_SEGMENTS = 50
_LARGE_BYTES = 8192
_MOST_MADE = 256

T = TypeVar("T")

_log = Logger(__name__)


class CacheUse(Enum):
    """What a request wants of the cache.

    FRESH: no earlier result; its own may serve others. NONE: neither read nor written.
    """

    NORMAL = "normal"
    FRESH = "fresh"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counts since the start, of all processes of the server.

    shared: joined a request in progress. hit_rate: hits of all look-ups, None before the first.
    entries, bytes: in memory; None where another server has them.
    """

    hits: int
    misses: int
    shared: int
    hit_rate: float | None
    entries: int | None
    bytes: int | None


@dataclass(frozen=True, slots=True)
class _Made:
    """of: the bytes it was made from. They are compared, so that nothing outlives what is kept."""

    of: bytes
    value: object


class ResultCache:
    """
    Args:
        recipe: what else changes a result, alike for all requests: the program's version, number formats.
        max_entry_bytes: larger results are not kept.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        recipe: str,
        ttl_s: float,
        max_entry_bytes: int,
        metrics: Metrics,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cache = cache
        self._recipe = recipe
        self._ttl_s = ttl_s
        self._max_entry_bytes = max_entry_bytes
        self._metrics = metrics
        self._wall_clock = wall_clock
        self._codec = ResultCodec()
        self._made: OrderedDict[tuple[CacheKey, Hashable], _Made] = OrderedDict()

    def serves(self, options: TranscribeOptions) -> bool:
        """Whether a request with these options always has the same result: sampling has not."""
        return not options.temperature

    def key(self, tenant: str, sha256: bytes, model: ModelRef, options: TranscribeOptions) -> CacheKey:
        """
        Args:
            sha256: of the recording's bytes.
        """
        # The repr of a frozen dataclass names every field and quotes every text: nothing is left out, and no
        # two requests have the same one.
        whole = repr((self._recipe, tenant, sha256, model.id, model.revision, options))
        return CacheKey(_partition(tenant), hashlib.sha256(whole.encode()).hexdigest())

    async def find(self, key: CacheKey) -> Transcript | None:
        data = await self._cache.get(key)
        if data is None:
            return None
        try:
            if len(data) < _LARGE_BYTES:
                return self._codec.unpack(key.name, data)
            return await asyncio.to_thread(self._codec.unpack, key.name, data)
        except UnreadableResult as error:
            self._unreadable(error)
            return None

    async def find_as(self, key: CacheKey, shape: Hashable, make: Callable[[Transcript], T]) -> T | None:
        """What `make` gives for a kept result; remembered for short ones, so that it is made once.

        Args:
            shape: equal wherever `make` gives the same for the same transcript.
        """
        data = await self._cache.get(key)
        if data is None:
            return None
        made = self._made.get((key, shape))
        if made is not None and made.of == data:
            self._made.move_to_end((key, shape))
            return cast(T, made.value)
        try:
            if len(data) >= _LARGE_BYTES:
                return await asyncio.to_thread(lambda: make(self._codec.unpack(key.name, data)))
            value = make(self._codec.unpack(key.name, data))
        except UnreadableResult as error:
            self._unreadable(error)
            return None
        self._made[key, shape] = _Made(data, value)
        if len(self._made) > _MOST_MADE:
            self._made.popitem(last=False)
        return value

    async def keep(self, key: CacheKey, transcript: Transcript) -> None:
        kept = replace(transcript, cached_at=self._wall_clock())
        if len(kept.segments) < _LARGE_SEGMENTS:
            data = self._codec.pack(key.name, kept)
        else:
            data = await asyncio.to_thread(self._codec.pack, key.name, kept)
        if len(data) <= self._max_entry_bytes:
            await self._cache.put(key, data, self._ttl_s)
            self._report_size()

    async def clear(self, caller: Caller) -> int:
        """Remove everything kept for a tenant; returns how many results that were.

        Raises:
            Unavailable: the cache cannot be reached; what is in it stays until its time is over.
        """
        tenant = caller.needs(Scope.CACHE)
        try:
            removed = await self._cache.clear(_partition(tenant))
            self._report_size()
            return removed
        except (CacheUnreachable, CacheRefused) as error:
            raise Unavailable("the cache did not do it; try again", retry_after_s=5) from error

    def _unreadable(self, error: UnreadableResult) -> None:
        self._metrics.observe_cache_fault(CACHE_NAME, "unreadable")
        _log.warning("cached result not readable", problem=str(error))

    def count(self, outcome: CacheOutcome) -> None:
        self._metrics.observe_cache(CACHE_NAME, outcome)

    def stats(self) -> CacheStats:
        hits, misses, shared = (
            int(self._metrics.total("cache_lookups", cache=CACHE_NAME, outcome=outcome))
            for outcome in ("hit", "miss", "shared")
        )
        looked_up = hits + misses + shared
        here = self._report_size()
        return CacheStats(
            hits=hits,
            misses=misses,
            shared=shared,
            hit_rate=round(hits / looked_up, 4) if looked_up else None,
            entries=int(self._metrics.total("cache_entries", cache=CACHE_NAME)) if here else None,
            bytes=int(self._metrics.total("cache_bytes", cache=CACHE_NAME)) if here else None,
        )

    def _report_size(self) -> bool:
        """Whether entries are kept in this process."""
        size = self._cache.size()
        if size is not None:
            self._metrics.cache_size(CACHE_NAME, entries=size.entries, size_bytes=size.bytes)
        return size is not None

    async def close(self) -> None:
        await self._cache.close()


class CacheReports:
    """Hands what a guarded cache sees to the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def cache_fault(self, fault: str) -> None:
        self._metrics.observe_cache_fault(CACHE_NAME, fault)

    def cache_available(self, *, reading: bool, writing: bool) -> None:
        self._metrics.cache_available(CACHE_NAME, reading=reading, writing=writing)


def _partition(tenant: str) -> str:
    return hashlib.sha256(tenant.encode()).hexdigest()[:32]
