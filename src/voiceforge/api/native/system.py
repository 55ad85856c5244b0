"""What the server says about itself: who it is, how it is, what it did."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from voiceforge.api.http.auth import caller_of
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.native import schemas
from voiceforge.services.container import Services
from voiceforge.services.health import Health, HealthReport
from voiceforge.services.result_cache import ResultCache

_LINKS = {
    "documentation": "/docs",
    "openapi": "/openapi.json",
    "transcriptions": "/v1/transcriptions",
    "models": "/v1/models",
    "health": "/health",
    "stats": "/stats",
}


def health_router(health: Health) -> APIRouter:
    """Whoever asks these decides by the time of the answer too: no thread is waited for."""
    routes = APIRouter(tags=["System"])

    @routes.get(
        "/health",
        response_model=schemas.HealthOut,
        responses={503: {"model": schemas.HealthOut, "description": "Something failed."}},
    )
    async def everything(request: Request) -> Response:
        """Everything that is checked. 200 also where it is degraded."""
        report = await health.report_seen()
        return _reply(report, 503 if report.status == "failed" else 200)

    @routes.get("/health/live", response_model=dict[str, str])
    async def live(request: Request) -> Response:
        """The process runs. Orchestrators restart it when this does not answer."""
        return JSONResponse({"status": "ok"})

    @routes.get(
        "/health/ready",
        response_model=schemas.HealthOut,
        responses={503: {"model": schemas.HealthOut, "description": "Send requests elsewhere."}},
    )
    async def ready(request: Request) -> Response:
        """Requests are welcome: the default model is loaded and the server is not stopping. 200 also where
        it is degraded, as without its database."""
        report = health.ready()
        return _reply(report, 503 if report.status == "failed" else 200)

    return routes


def router(services: Services, config: HttpConfig) -> APIRouter:
    routes = APIRouter(tags=["System"])

    @routes.get("/")
    async def about() -> schemas.ServiceOut:
        """Name, version, and where to go from here."""
        return schemas.ServiceOut(name="VoiceForge", version=config.version, links=_LINKS)

    @routes.get("/stats")
    def stats(request: Request) -> schemas.StatsOut:
        """Counts since the start, for those who run the server."""
        caller_of(request).needs_to_run_the_server()
        services.engines.report_depths()
        total = services.metrics.total
        return schemas.StatsOut(
            version=config.version,
            uptime_s=round(services.health.ready().uptime_s, 3),
            requests=int(total("requests")),
            requests_in_flight=int(total("requests_in_flight")),
            errors=int(total("errors")),
            audio_seconds=round(total("audio_seconds"), 3),
            queue_depth=int(total("queue_depth")),
            models_loaded=sorted(services.engines.loaded()),
            cache=_cache_stats(services.results),
        )

    @routes.delete(
        "/cache",
        responses={503: {"model": schemas.ErrorOut, "description": "The cache cannot be reached."}},
    )
    async def clear_cache(request: Request) -> schemas.CacheClearedOut:
        """Forget the results kept for the caller."""
        if services.results is None:
            return schemas.CacheClearedOut(removed=0)
        removed = await services.results.clear(caller_of(request))
        if services.audit is not None:
            await services.audit.note(caller_of(request), "cache.cleared", removed=removed)
        return schemas.CacheClearedOut(removed=removed)

    if config.features.metrics:

        @routes.get("/metrics", response_class=Response)
        def metrics(request: Request) -> Response:
            """Prometheus' text format, for those who run the server."""
            caller_of(request).needs_to_run_the_server()
            services.engines.report_depths()
            body, content_type = services.metrics.exposition()
            return Response(body, headers={"Content-Type": content_type})

    return routes


def _cache_stats(results: ResultCache | None) -> schemas.CacheStatsOut | None:
    return schemas.CacheStatsOut(**asdict(results.stats())) if results is not None else None


def _reply(report: HealthReport, status: int) -> JSONResponse:
    # As `schemas.HealthOut`, which documents it; to make one takes longer than all the rest.
    document = {
        "status": report.status,
        "version": report.version,
        "uptime_s": round(report.uptime_s, 3),
        "checks": [
            {"name": check.name, "status": check.status, "detail": check.detail, "data": dict(check.data)}
            for check in report.checks
        ],
    }
    return JSONResponse(document, status)
