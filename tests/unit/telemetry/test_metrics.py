"""The figures, read back with Prometheus' own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from voiceforge.errors import AudioTooShort, ErrorKind
from voiceforge.telemetry.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    body, media_type = metrics.exposition()
    assert media_type.startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, tuple(sorted(labels.items()))]


def test_requests_are_counted_timed_and_seen_while_they_run() -> None:
    metrics = Metrics("1.2.3")
    with metrics.in_flight("openai"):
        assert value(metrics, "voiceforge_requests_in_flight", surface="openai") == 1
    metrics.observe_request(surface="openai", route="/v1/models/{id}", method="GET", status=404, seconds=0.2)
    where = {"surface": "openai", "route": "/v1/models/{id}", "method": "GET"}
    assert value(metrics, "voiceforge_requests_in_flight", surface="openai") == 0
    assert value(metrics, "voiceforge_requests_total", status="404", **where) == 1
    assert value(metrics, "voiceforge_request_duration_seconds_sum", **where) == 0.2
    assert value(metrics, "voiceforge_request_duration_seconds_bucket", le="0.1", **where) == 0
    assert value(metrics, "voiceforge_request_duration_seconds_bucket", le="0.25", **where) == 1


def test_a_request_that_fails_is_in_flight_no_more() -> None:
    metrics = Metrics("1")
    try:
        with metrics.in_flight("native"):
            raise RuntimeError
    except RuntimeError:
        pass
    assert value(metrics, "voiceforge_requests_in_flight", surface="native") == 0


def test_errors_are_counted_by_kind_and_code() -> None:
    metrics = Metrics("1")
    metrics.observe_error(AudioTooShort.kind, AudioTooShort.code)
    metrics.observe_error(ErrorKind.INTERNAL, "internal_error")
    assert value(metrics, "voiceforge_errors_total", kind="audio_out_of_limits", code="audio_too_short") == 1
    assert metrics.total("errors") == 2
    assert metrics.total("errors", kind="internal") == 1


def test_a_transcription_gives_audio_time_duration_and_rtf() -> None:
    metrics = Metrics("1")
    metrics.observe_transcription(model="m", audio_s=100.0, processing_s=2.0)
    metrics.observe_transcription(model="m", audio_s=0.0, processing_s=0.1)
    assert value(metrics, "voiceforge_audio_seconds_total", model="m") == 100
    assert value(metrics, "voiceforge_transcription_duration_seconds_sum", model="m") == 2.1
    assert value(metrics, "voiceforge_transcription_rtf_count", model="m") == 1
    assert value(metrics, "voiceforge_transcription_rtf_sum", model="m") == 0.02


def test_queue_batches_models_and_caches() -> None:
    metrics = Metrics("1")
    metrics.queue_depth(model="m", priority="live", depth=7)
    metrics.queue_depth(model="m", priority="live", depth=3)
    metrics.observe_queue_wait(model="m", priority="live", seconds=0.5)
    metrics.observe_batch(model="m", rows=8)
    metrics.model_loaded("m", seconds=1.25)
    metrics.observe_cache("results", "hit")
    metrics.observe_cache("results", "miss")
    assert value(metrics, "voiceforge_queue_depth", model="m", priority="live") == 3
    assert value(metrics, "voiceforge_queue_wait_seconds_sum", model="m", priority="live") == 0.5
    assert value(metrics, "voiceforge_batch_rows_sum", model="m") == 8
    assert value(metrics, "voiceforge_model_loaded", model="m") == 1
    assert value(metrics, "voiceforge_model_load_seconds", model="m") == 1.25
    assert value(metrics, "voiceforge_cache_lookups_total", cache="results", outcome="hit") == 1
    metrics.model_unloaded("m")
    assert value(metrics, "voiceforge_model_loaded", model="m") == 0


def test_a_broker_that_is_not_there_is_not_one_that_is_lost() -> None:
    metrics = Metrics("1.2.3")
    assert metrics.total("job_queue_available") == 1
    metrics.queue_available(available=False)
    assert metrics.total("job_queue_available") == 0


def test_two_sets_of_metrics_in_one_process_do_not_meet() -> None:
    one, other = Metrics("1"), Metrics("1")
    one.observe_batch(model="m", rows=1)
    assert not any(name == "voiceforge_batch_rows_sum" for name, _ in samples(other))


def test_the_process_and_the_build_are_described() -> None:
    seen = samples(Metrics("1.2.3"))
    assert seen["process_resident_memory_bytes", ()] > 0
    assert ("process_cpu_seconds_total", ()) in seen
    (labels,) = (dict(labels) for name, labels in seen if name == "voiceforge_build_info")
    assert labels["version"] == "1.2.3"
