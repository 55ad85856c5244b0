"""What a server counts about itself, in a registry of its own, written out for Prometheus.

Labels are few and bounded: routes are templates, never paths; nothing names a caller or a recording.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from voiceforge.errors import ErrorKind

# Seconds. From an answer without recognition to the longest recordings.
_DURATIONS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
_JOB_DURATIONS = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)
_WAITS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_LATENCIES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
# Processing time over audio time: 0.01 is a hundred times faster than speech, 1 is as fast.
_RTFS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.0, 2.0, 5.0)
_ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 64)

CacheOutcome = Literal["hit", "miss", "shared"]
"""shared: not kept yet, but the same work was in progress already."""

WebhookOutcome = Literal["delivered", "retried", "failed"]
"""retried: not taken, to be sent again; failed: not taken, and that was the last attempt."""

MetricT = TypeVar("MetricT", Counter, Gauge, Histogram)


SHARED_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Where the processes of one server keep their figures for each other; the Prometheus library reads it
from the environment when it is first imported, and from nowhere else."""


def forget_process(pid: int, shared: Path) -> None:
    """A process of the server has ended: what it had in progress is over, what it counted stays."""
    mark_process_dead(pid, str(shared))  # type: ignore[no-untyped-call]


class Metrics:
    """One per process. All methods are cheap and safe to call from any thread.

    Args:
        shared: the folder through which several processes of one server add their figures up; it must be
            what `SHARED_FOLDER_VARIABLE` says. None: this process is all there is.
    """

    def __init__(self, version: str, *, shared: Path | None = None) -> None:
        self._registry = CollectorRegistry()
        self._own = CollectorRegistry()
        self._summed: CollectorRegistry | None = None
        if shared is not None:
            self._summed = CollectorRegistry()
            MultiProcessCollector(self._summed, str(shared))  # type: ignore[no-untyped-call]
        else:
            ProcessCollector(registry=self._own)
        Info("voiceforge_build", "What is running.", registry=self._own).info(
            {"version": version, "python": platform.python_version()}
        )
        self._requests = self._new(
            Counter, "requests", "Requests answered.", ("surface", "route", "method", "status")
        )
        self._latency = self._new(
            Histogram,
            "request_duration_seconds",
            "From the first byte in to the last byte out.",
            ("surface", "route", "method"),
            buckets=_DURATIONS,
        )
        self._answered: dict[tuple[str, str, str, int], tuple[Counter, Histogram]] = {}
        self._in_flight = self._new(
            Gauge,
            "requests_in_flight",
            "Requests being answered now.",
            ("surface",),
            multiprocess_mode="livesum",
        )
        self._errors = self._new(Counter, "errors", "Errors answered, by what went wrong.", ("kind", "code"))
        self._audio = self._new(Counter, "audio_seconds", "Seconds of audio transcribed.", ("model",))
        self._processing = self._new(
            Histogram,
            "transcription_duration_seconds",
            "Time to transcribe one recording, waiting included.",
            ("model",),
            buckets=_DURATIONS,
        )
        self._rtf = self._new(
            Histogram, "transcription_rtf", "Processing time over audio time.", ("model",), buckets=_RTFS
        )
        self._depth = self._new(
            Gauge,
            "queue_depth",
            "Windows waiting for the model.",
            ("model", "priority"),
            multiprocess_mode="livesum",
        )
        self._wait = self._new(
            Histogram,
            "queue_wait_seconds",
            "Time a window waited for the model.",
            ("model", "priority"),
            buckets=_WAITS,
        )
        self._rows = self._new(
            Histogram, "batch_rows", "Windows decoded together.", ("model",), buckets=_ROWS
        )
        self._loaded = self._new(
            Gauge, "model_loaded", "1 while the model is in memory.", ("model",), multiprocess_mode="livemax"
        )
        self._load_time = self._new(
            Gauge,
            "model_load_seconds",
            "How long the last load took.",
            ("model",),
            multiprocess_mode="livemax",
        )
        self._memory = self._new(
            Gauge,
            "model_memory_bytes",
            "Resident memory of the model's process.",
            ("model",),
            multiprocess_mode="livemax",
        )
        self._hosts = self._new(
            Counter,
            "engine_host_starts",
            "Processes started for a model; `again`: because the one before had ended.",
            ("model", "again"),
        )
        self._lost = self._new(
            Counter,
            "audio_processes_lost",
            "Processes that ended over a recording; `stuck`: ended because they did not get on.",
            ("craft", "stuck"),
        )
        self._cache = self._new(Counter, "cache_lookups", "Look-ups in a cache.", ("cache", "outcome"))
        self._cache_faults = self._new(
            Counter, "cache_faults", "What a cache could not do, by why.", ("cache", "fault")
        )
        self._cache_available = self._new(
            Gauge,
            "cache_available",
            "0 while a cache is not asked, because it failed.",
            ("cache", "access"),
            multiprocess_mode="livemin",
        )
        self._cache_entries = self._new(
            Gauge,
            "cache_entries",
            "Entries of a cache in this server's memory.",
            ("cache",),
            multiprocess_mode="livesum",
        )
        self._cache_bytes = self._new(
            Gauge,
            "cache_bytes",
            "Memory of a cache in this server.",
            ("cache",),
            multiprocess_mode="livesum",
        )

        self._rate_limited = self._new(
            Counter, "rate_limited", "Requests and streams refused by a limit, by whose.", ("by",)
        )
        self._bookings_lost = self._new(
            Counter, "bookings_lost", "Bookings of usage that could not be written.", ()
        )
        self._limiter_faults = self._new(
            Counter, "limiter_faults", "Times that Redis did not say what was used.", ()
        )
        self._limiter_shared = self._new(
            Gauge,
            "limits_shared",
            "0 while this process counts for itself, because Redis is out of reach.",
            (),
            multiprocess_mode="livemin",
        )
        self._limiter_shared.set(1)
        self._webhooks = self._new(
            Counter,
            "webhook_deliveries",
            "Attempts to deliver an event, by what came of them.",
            ("outcome",),
        )
        self._webhooks_waiting = self._new(
            Gauge,
            "webhook_deliveries_waiting",
            "Deliveries that are not over, in the whole database.",
            (),
            multiprocess_mode="livemax",
        )
        self._jobs_waiting = self._new(
            Gauge,
            "job_queue_depth",
            "Jobs that could be worked on now, in the whole database.",
            ("lane",),
            multiprocess_mode="livemax",
        )
        self._jobs_oldest = self._new(
            Gauge,
            "job_queue_age_seconds",
            "How long the one of them has waited that waits for longest.",
            ("lane",),
            multiprocess_mode="livemax",
        )
        self._jobs_running = self._new(
            Gauge,
            "jobs_running",
            "Jobs being worked on, in the whole database.",
            (),
            multiprocess_mode="livemax",
        )
        self._job_times = self._new(
            Histogram,
            "job_duration_seconds",
            "From the acceptance of a job to its end, by how it ended.",
            ("status",),
            buckets=_JOB_DURATIONS,
        )
        self._job_retries = self._new(
            Counter, "job_retries", "Attempts to be followed by another, by what went wrong.", ("code",)
        )
        self._job_dead_letters = self._new(
            Counter, "job_dead_letters", "Jobs that failed for good, by what went wrong.", ("code",)
        )
        self._untold = self._new(
            Counter, "job_offers_failed", "Jobs that workers could not be told of; they are told later.", ()
        )
        self._queue_available = self._new(
            Gauge,
            "job_queue_available",
            "0 while the broker cannot be reached.",
            (),
            multiprocess_mode="livemin",
        )
        self._queue_available.set(1)  # also where there is no broker: nobody is to be woken for that

        self._streams = self._new(
            Gauge, "streams_open", "Live streams open now.", (), multiprocess_mode="livesum"
        )
        self._first_interims = self._new(
            Histogram,
            "stream_first_interim_seconds",
            "From the beginning of an utterance to its first interim.",
            (),
            buckets=_LATENCIES,
        )
        self._finals = self._new(
            Histogram,
            "stream_final_seconds",
            "From the end of speech to its final, the silence that ends an utterance included.",
            (),
            buckets=_LATENCIES,
        )
        self._lag = self._new(
            Gauge,
            "stream_lag_seconds",
            "How long live audio waits to be heard.",
            (),
            multiprocess_mode="livemax",
        )
        self._interims_dropped = self._new(
            Counter, "stream_interims_dropped", "Interims that were not decoded, or no longer wanted.", ()
        )
        self._revisions = self._new(
            Counter, "stream_revisions", "Finals heard again by a better model, and left out.", ("outcome",)
        )
        self._kept_streams = self._new(
            Counter,
            "streams_kept",
            "Polished streams that became transcriptions (kept), wait for it (later), were not kept to their "
            "end (stopped) or never (lost).",
            ("outcome",),
        )

    def _new(
        self, kind: type[MetricT], name: str, meaning: str, labels: Sequence[str], **more: Any
    ) -> MetricT:
        return kind(f"voiceforge_{name}", meaning, labels, registry=self._registry, **more)

    # -- requests

    def in_flight(self, surface: str) -> AbstractContextManager[None]:
        """Count one request as being answered while the block runs."""
        return self._in_flight.labels(surface).track_inprogress()

    def observe_request(
        self, *, surface: str, route: str, method: str, status: int, seconds: float | None
    ) -> None:
        """One request is answered. `route` is the template, such as `/v1/models/{id}`. seconds: None where
        how long it took says nothing."""
        labels = (surface, route, method, status)
        found = self._answered.get(labels)
        if found is None:  # finding them among all labels costs more than counting
            found = self._answered[labels] = (
                self._requests.labels(surface, route, method, str(status)),
                self._latency.labels(surface, route, method),
            )
        count, latency = found
        count.inc()
        if seconds is not None:
            latency.observe(seconds)

    def observe_error(self, kind: ErrorKind, code: str) -> None:
        self._errors.labels(kind.value, code).inc()

    # -- recognition

    def observe_transcription(self, *, model: str, audio_s: float, processing_s: float) -> None:
        """One recording is finished; both durations in seconds."""
        self._audio.labels(model).inc(audio_s)
        self._processing.labels(model).observe(processing_s)
        if audio_s > 0:
            self._rtf.labels(model).observe(processing_s / audio_s)

    def observe_batch(self, *, model: str, rows: int) -> None:
        self._rows.labels(model).observe(rows)

    def observe_queue_wait(self, *, model: str, priority: str, seconds: float) -> None:
        self._wait.labels(model, priority).observe(seconds)

    def queue_depth(self, *, model: str, priority: str, depth: int) -> None:
        """`depth` windows are waiting now."""
        self._depth.labels(model, priority).set(depth)

    # -- live streams

    def streams_open(self, count: int) -> None:
        self._streams.set(count)

    def first_interim(self, seconds: float) -> None:
        """So long after an utterance began it was told for the first time."""
        self._first_interims.observe(seconds)

    def final_told(self, seconds: float) -> None:
        """So long after the last word of an utterance its final was told."""
        self._finals.observe(seconds)

    def stream_lag(self, seconds: float) -> None:
        self._lag.set(seconds)

    def interim_dropped(self) -> None:
        self._interims_dropped.inc()

    def revision_told(self) -> None:
        self._revisions.labels("told").inc()

    def revision_dropped(self) -> None:
        """Finals that were not heard again."""
        self._revisions.labels("dropped").inc()

    def stream_kept(self, outcome: Literal["kept", "later", "stopped", "lost"]) -> None:
        self._kept_streams.labels(outcome).inc()

    # -- models and caches

    def model_loaded(self, model: str, *, seconds: float) -> None:
        self._loaded.labels(model).set(1)
        self._load_time.labels(model).set(seconds)

    def model_unloaded(self, model: str) -> None:
        self._loaded.labels(model).set(0)
        self._memory.labels(model).set(0)

    def model_memory(self, model: str, size_bytes: int) -> None:
        self._memory.labels(model).set(size_bytes)

    def host_started(self, model: str, *, again: bool) -> None:
        """A process was started for a model."""
        self._hosts.labels(model, str(again).lower()).inc()

    def audio_process_lost(self, craft: str, *, stuck: bool) -> None:
        """A process that listened or aligned ended before it was done."""
        self._lost.labels(craft, str(stuck).lower()).inc()

    def observe_cache(self, cache: str, outcome: CacheOutcome) -> None:
        self._cache.labels(cache, outcome).inc()

    def observe_cache_fault(self, cache: str, fault: str) -> None:
        self._cache_faults.labels(cache, fault).inc()

    def cache_available(self, cache: str, *, reading: bool, writing: bool) -> None:
        self._cache_available.labels(cache, "read").set(reading)
        self._cache_available.labels(cache, "write").set(writing)

    def cache_size(self, cache: str, *, entries: int, size_bytes: int) -> None:
        self._cache_entries.labels(cache).set(entries)
        self._cache_bytes.labels(cache).set(size_bytes)

    # -- webhooks

    def observe_webhook(self, outcome: WebhookOutcome) -> None:
        """One attempt is over."""
        self._webhooks.labels(outcome).inc()

    def webhooks_waiting(self, count: int) -> None:
        """`count` deliveries wait, for their first attempt or another."""
        self._webhooks_waiting.set(count)

    # -- limits

    def rate_limited(self, by: str) -> None:
        self._rate_limited.labels(by).inc()

    def bookings_lost(self, count: int) -> None:
        self._bookings_lost.inc(count)

    def limiter_fault(self) -> None:
        self._limiter_faults.inc()

    def limiter_shared(self, shared: bool) -> None:
        """Whether all processes count together."""
        self._limiter_shared.set(shared)

    # -- jobs

    def jobs_waiting(self, *, lane: str, depth: int, oldest_s: float) -> None:
        """`depth` jobs wait now, the oldest for so long."""
        self._jobs_waiting.labels(lane).set(depth)
        self._jobs_oldest.labels(lane).set(oldest_s)

    def jobs_running(self, count: int) -> None:
        self._jobs_running.set(count)

    def job_ended(self, status: str, *, seconds: float, code: str | None = None) -> None:
        """A job is over, so long after it was accepted. code: of the error of one that failed."""
        self._job_times.labels(status).observe(seconds)
        if code is not None:
            self._job_dead_letters.labels(code).inc()

    def job_retried(self, code: str) -> None:
        """An attempt failed; there will be another."""
        self._job_retries.labels(code).inc()

    def observe_untold(self, tasks: int) -> None:
        """So many jobs could not be told to workers."""
        self._untold.inc(tasks)

    def queue_available(self, available: bool) -> None:
        """Whether workers can be told of jobs."""
        self._queue_available.set(available)

    # -- out

    def exposition(self) -> tuple[bytes, str]:
        """Everything in Prometheus' text format, and its content type."""
        both = (self._own, self._summed or self._registry)
        return b"".join(generate_latest(registry) for registry in both), CONTENT_TYPE_LATEST

    def total(self, name: str, **labels: str) -> float:
        """The sum of one of our counters or gauges over all label values but those given.

        Args:
            name: without prefix and suffix, such as `requests` or `audio_seconds`.
        """
        family = f"voiceforge_{name}"
        return sum(
            sample.value
            for metric in (self._summed or self._registry).collect()
            if metric.name == family
            for sample in metric.samples
            if sample.name in (family, f"{family}_total")
            and all(sample.labels.get(label) == value for label, value in labels.items())
        )
