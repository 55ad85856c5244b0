"""Wires everything, once: settings in, the services of a process out.

What only servers need is imported where it is wired: commands start sooner.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from voiceforge.errors import DependencyMissing, ModelNotFound
from voiceforge.infra.cache.base import Cache
from voiceforge.infra.cache.clearings import Clearings
from voiceforge.infra.cache.guarded import GuardedCache
from voiceforge.infra.cache.memory import MemoryCache
from voiceforge.infra.enginehost.base import EngineHosts, EngineSpec
from voiceforge.infra.enginehost.in_process import InProcessHosts
from voiceforge.infra.fetch.base import Fetcher
from voiceforge.infra.modelstore.disk import DiskModelStore
from voiceforge.infra.modelstore.hub import Hub, HubAddress
from voiceforge.main.memory import suit_memory_to
from voiceforge.main.request_settings import temp_dir
from voiceforge.main.settings import Settings
from voiceforge.services.container import Services
from voiceforge.services.engine_room import EngineRoom
from voiceforge.services.health import Health
from voiceforge.services.models import Models
from voiceforge.services.result_cache import CACHE_NAME, CacheReports, ResultCache
from voiceforge.services.transcriptions import Transcriptions
from voiceforge.speech.alignment.aligner import Aligner
from voiceforge.speech.audio.stream_decoder import LocalStreamDecoders, StreamDecoders
from voiceforge.speech.engines.base import Engine
from voiceforge.speech.engines.device import DeviceChoice, RunsOn, choose_device, usable_cores
from voiceforge.speech.engines.registry import load_engine
from voiceforge.speech.engines.tickets import BatcherLimits
from voiceforge.speech.formats.subtitles import SubtitleOptions
from voiceforge.speech.pipeline.listen import Listener, LocalListener
from voiceforge.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from voiceforge.infra.audiohost.keeper import AudioHostKeeper
    from voiceforge.infra.enginehost.keeper import HostKeeper, Hosts
    from voiceforge.services.limits import Limits
    from voiceforge.services.streams import Streams

_LISTENERS_PER_CORE = 2
"""One of them waits for the disk, or for its request's thread, now and then."""


def build(
    settings: Settings,
    *,
    version: str,
    any_folder: bool = False,
    hosts: Hosts | None = None,
    audio_host: Path | None = None,
    metrics: Metrics | None = None,
    keep_results: bool = False,
    clearings: Clearings | None = None,
    live: bool = False,
) -> Services:
    """The services of one process; nothing is loaded yet.

    Args:
        hosts: who keeps the processes of the models; None: models live in threads here.
        audio_host: address of the host whose members read audio; None: threads here do.
        metrics: None: of this process alone.
        keep_results: for identical requests, where the settings do not say otherwise.
        clearings: shared with other processes that keep results of the same callers; None: there are none.
        live: streams are served, where the settings do not say otherwise.
        any_folder: callers may name any local folder as a model: for processes whose caller is
            their owner.
    """
    metrics = metrics or Metrics(version)
    device = _Device(settings)
    runs_on: dict[str, RunsOn] = {}
    cores = settings.engine.threads or usable_cores()

    limits = BatcherLimits(
        max_tickets=settings.queue.max_requests,
        max_queued_s=settings.queue.max_queued_s,
        batch_wait_s=settings.queue.batch_wait_s,
    )

    def load(model_id: str) -> Engine:
        source = models.source(model_id)
        files = source.installed.files
        engine, runs_on[model_id] = load_engine(
            source.entry, files.path, files.revision, cores=cores, device=device.choice
        )
        suit_memory_to(source.entry.runtime)
        return engine

    def spec(model_id: str) -> EngineSpec:
        source = models.source(model_id)
        files = source.installed.files
        wish = settings.engine
        return EngineSpec(
            entry=source.entry,
            path=files.path,
            revision=files.revision,
            cores=cores,
            device=wish.device,
            compute_type=wish.compute_type,
            threads=wish.threads,
            limits=limits,
        )

    engines = EngineRoom(
        _child_processes(hosts, spec, metrics)
        if hosts is not None
        else InProcessHosts(load, limits, runs_on=runs_on.get),
        metrics=metrics,
        idle_unload_s=settings.models.idle_unload_s,
        memory_budget_bytes=settings.models.memory_budget_bytes,
        keep=lambda: frozenset({_default_id(models, settings)}),
    )
    endpoint = settings.models.hub_endpoint
    store = DiskModelStore(
        settings.data_dir / "models",
        Hub(HubAddress(endpoint) if endpoint is not None else None),
        offline=settings.models.offline,
    )
    models = Models(
        store,
        default=settings.model,
        aliases=settings.models.aliases,
        loaded=engines,
        named=settings.models.preload,
        any_folder=any_folder,
    )
    listener, aligner, decoders = _ears(settings, cores, audio_host, metrics)
    results = _results(settings, version, metrics, clearings) if keep_results else None
    transcriptions = Transcriptions(
        models=models,
        engines=engines,
        listener=listener,
        aligner=aligner,
        fetcher=url_fetcher(settings),
        subtitles=SubtitleOptions(**settings.subtitles.model_dump()),
        metrics=metrics,
        temp_dir=temp_dir(settings),
        max_threads=settings.queue.max_requests,
        results=results,
        recipe=version,
    )
    health = Health(
        engines=engines,
        default_model=_default_id(models, settings),
        data_dir=settings.data_dir,
        version=version,
    )
    streams = _streams(settings, models, engines, transcriptions, metrics, decoders) if live else None
    rates = _limits(settings, metrics) if live else None
    return Services(transcriptions, models, health, engines, metrics, results, streams, rates)


def _limits(settings: Settings, metrics: Metrics) -> Limits:
    from voiceforge.main.limits import build_limits

    return build_limits(settings, metrics)


def _streams(
    settings: Settings,
    models: Models,
    engines: EngineRoom,
    transcriptions: Transcriptions,
    metrics: Metrics,
    decoders: StreamDecoders,
) -> Streams | None:
    if not settings.features.streams:
        return None
    from voiceforge.services.streams import StreamLimits, Streams

    wish = settings.streams
    return Streams(
        models=models,
        engines=engines,
        aligner=transcriptions.shared_aligner,
        decoders=decoders,
        metrics=metrics,
        limits=StreamLimits(
            max_sessions=wish.max_sessions,
            max_sessions_per_tenant=wish.max_sessions_per_key,
            max_lag_s=wish.max_lag_s,
            idle_s=wish.idle_s,
            max_session_s=wish.max_session_s,
            max_unheard_s=wish.max_unheard_s,
            grace_s=wish.grace_s,
            keep_events_s=wish.keep_events_s,
        ),
    )


def _default_id(models: Models, settings: Settings) -> str:
    """The model's own id where the setting names an alias; the name as it is where it means nothing, so
    that health can say what is missing."""
    try:
        return models.resolve(None)
    except ModelNotFound:
        return settings.model


class _Device:
    """Where models run; found out on first use, since asking loads a runtime."""

    def __init__(self, settings: Settings) -> None:
        self._wishes = settings.engine
        self._choice: DeviceChoice | None = None

    def choice(self) -> DeviceChoice:
        if self._choice is None:
            self._choice = choose_device(self._wishes.device, self._wishes.compute_type, self._wishes.threads)
        return self._choice


def _child_processes(hosts: Hosts, spec: Callable[[str], EngineSpec], metrics: Metrics) -> EngineHosts:
    from voiceforge.infra.enginehost.child_process import ChildProcessHosts

    return ChildProcessHosts(hosts, spec, metrics)


def keep_hosts(settings: Settings) -> HostKeeper:
    """The keeper of the models' processes; belongs to the first process of a server."""
    from voiceforge.infra.enginehost.keeper import HostKeeper, WatchRules

    wish = settings.engine
    return HostKeeper(
        [sys.executable, "-P", "-m", "voiceforge.main.engine_host"],
        rules=WatchRules(
            silent_s=wish.silent_timeout_s,
            batch_s=wish.batch_timeout_s,
            max_rss_bytes=wish.max_process_bytes,
        ),
    )


def keep_audio_host() -> AudioHostKeeper:
    """The keeper of those who read audio; belongs to the first process of a server."""
    from voiceforge.infra.audiohost.keeper import AudioHostKeeper

    return AudioHostKeeper([sys.executable, "-P", "-m", "voiceforge.main.audio_host"])


def _ears(
    settings: Settings, cores: int, audio_host: Path | None, metrics: Metrics
) -> tuple[Listener, Callable[[], Aligner], StreamDecoders]:
    """What listens to recordings, what makes the aligner, and what decodes live streams."""
    if audio_host is None:
        return LocalListener(), lambda: _local_aligner(cores), LocalStreamDecoders()
    from voiceforge.infra.audiohost.pool import MemberPool
    from voiceforge.infra.audiohost.remote_aligner import ALIGN, RemoteAligner
    from voiceforge.infra.audiohost.remote_decoder import STREAM, RemoteStreamDecoders
    from voiceforge.infra.audiohost.remote_listener import LISTEN, RemoteListener
    from voiceforge.speech.alignment.english_pocketsphinx import ALIGNED_LANGUAGES

    pool = MemberPool(
        audio_host,
        {LISTEN: _LISTENERS_PER_CORE * cores, ALIGN: cores, STREAM: _LISTENERS_PER_CORE * cores},
        patience_s=settings.audio.decode_timeout_s,
        observer=metrics,
    )
    return RemoteListener(pool), lambda: RemoteAligner(pool, ALIGNED_LANGUAGES), RemoteStreamDecoders(pool)


def _local_aligner(threads: int) -> Aligner:
    from voiceforge.speech.alignment.english_pocketsphinx import PocketsphinxAligner

    return PocketsphinxAligner(max_decoders=threads)


def _results(
    settings: Settings, version: str, metrics: Metrics, clearings: Clearings | None
) -> ResultCache | None:
    wish, engine = settings.cache, settings.engine
    if not wish.enabled:
        return None
    return ResultCache(
        MemoryCache(int(wish.max_bytes), clearings=clearings)
        if wish.url is None
        else _redis(wish.url.get_secret_value(), wish.timeout_s, metrics),
        recipe=f"{version} {engine.device} {engine.compute_type}",
        ttl_s=wish.ttl_s,
        max_entry_bytes=int(wish.max_entry_bytes),
        metrics=metrics,
    )


def _redis(url: str, timeout_s: float, metrics: Metrics) -> Cache:
    try:
        from voiceforge.infra.cache.redis import RedisCache
    except ImportError:
        raise DependencyMissing(
            "cache.url needs the Redis client. Run: pip install 'voiceforge[redis]'"
        ) from None
    return GuardedCache(
        RedisCache(url, prefix=f"voiceforge:{CACHE_NAME}", timeout_s=timeout_s), CacheReports(metrics)
    )


def url_fetcher(settings: Settings) -> Callable[[], Fetcher] | None:
    """Makes what fetches recordings from URLs; None where that is switched off."""
    return (lambda: _fetcher(settings)) if settings.features.url_input else None


async def check_url(settings: Settings, url: str) -> None:
    """Refuse early what the fetcher would refuse.

    Raises:
        UrlRefused
    """
    from voiceforge.infra.fetch.guard import check_destination

    await check_destination(url, allow_hosts=settings.fetch.allow_hosts)


def _fetcher(settings: Settings) -> Fetcher:
    from voiceforge.infra.fetch.http import HttpFetcher

    fetch = settings.fetch
    return HttpFetcher(
        max_bytes=int(fetch.max_bytes),
        timeout_s=fetch.timeout_s,
        max_redirects=fetch.max_redirects,
        allow_hosts=fetch.allow_hosts,
    )
