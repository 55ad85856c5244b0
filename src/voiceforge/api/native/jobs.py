"""Transcriptions that are jobs: accepted, shown, listed, searched, cancelled, tried again, erased."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from voiceforge.api.http.auth import caller_of
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.http.forms import Fields, M, body_schema, parse, query_parameters
from voiceforge.api.native import schemas
from voiceforge.api.native.convert import wanted_format
from voiceforge.api.native.job_convert import (
    cursor_of,
    id_before,
    job_document,
    known_id,
    unix_time,
)
from voiceforge.api.native.job_events import LAST_ID_HEADER, event_stream, last_event_id
from voiceforge.api.native.job_schemas import (
    CompletedJobOut,
    EventOut,
    FoundPageOut,
    JobOut,
    JobPageOut,
    ListQuery,
    ProgressOut,
    ResultQuery,
    SearchQuery,
)
from voiceforge.errors import InvalidRequest, UnsupportedOption
from voiceforge.services.container import Services
from voiceforge.services.job_intake import JobRequest
from voiceforge.services.job_view import JobView
from voiceforge.services.jobs import JobFilter, Jobs, JobStatus

REPLAYED_HEADER = "Idempotent-Replayed"
_WHAT = "transcription"


async def accepted(services: Services, wanted: JobRequest) -> Response:
    """The answer to `mode=async`.

    Raises:
        InvalidRequest: this process takes no jobs.
        VoiceForgeError: see `Jobs.submit`.
    """
    submitted = await jobs_of(services).submit(wanted)
    view = await jobs_of(services).show(wanted.caller, submitted.job.id, whole=False)
    headers = {"Location": f"/v1/transcriptions/{submitted.job.id}"}
    if not submitted.created:
        headers[REPLAYED_HEADER] = "true"
    return json_reply(job_document(view), 202, headers)


def jobs_of(services: Services) -> Jobs:
    if services.jobs is None:
        raise InvalidRequest("this server takes no jobs", field="mode")
    return services.jobs


def json_reply(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(body, status, headers=headers, media_type="application/json")


def router(services: Services, config: HttpConfig) -> APIRouter:
    routes = APIRouter(prefix="/v1/transcriptions", tags=["Jobs"])

    @routes.get("", response_model=JobPageOut, **documented(ListQuery))
    async def list_jobs(request: Request) -> Response:
        """The newest first, without their texts."""
        query = read_query(request, ListQuery)
        wanted = JobFilter(
            status=JobStatus(query.status) if query.status else None,
            batch_id=query.batch_id,
            model=query.model,
            created_after=unix_time(query.created_after),
            created_before=unix_time(query.created_before),
        )
        views = await jobs_of(services).list(
            caller_of(request), wanted, before=id_before(query.cursor), limit=query.limit + 1
        )
        return json_reply(page([job_document(view) for view in views], query.limit))

    @routes.get("/search", response_model=FoundPageOut, **documented(SearchQuery))
    async def search(request: Request) -> Response:
        """Completed transcriptions whose text has all these words; what was finished last comes first."""
        query = read_query(request, SearchQuery)
        found = await jobs_of(services).search(
            caller_of(request), query.q, before=id_before(query.cursor), limit=query.limit + 1
        )
        documents = [job_document(hit.view) | {"excerpt": hit.excerpt} for hit in found]
        return json_reply(page(documents, query.limit))

    @routes.get("/{transcription_id}", response_model=JobOut | CompletedJobOut, **documented())
    async def show(transcription_id: str, request: Request) -> Response:
        """How far it is; with its whole result once it is completed."""
        read_query(request, _NoQuery)
        view = await jobs_of(services).show(caller_of(request), known_id(transcription_id, _WHAT))
        if view.transcript is None:
            return json_reply(job_document(view))
        return await asyncio.to_thread(_whole, services, view)

    @routes.get(
        "/{transcription_id}/result", response_class=Response, **documented(ResultQuery, conflict=True)
    )
    async def result(transcription_id: str, request: Request) -> Response:
        """The result of a completed one, in any format."""
        output = wanted_format(read_query(request, ResultQuery).format, request.headers.get("accept"))
        formats = services.transcriptions.formats()
        if output not in formats:
            raise UnsupportedOption(
                f"format {output[:100]!r} is not one of: {', '.join(formats)}",
                field="format",
                choices=formats,
            )
        job_id = known_id(transcription_id, _WHAT)
        view = await jobs_of(services).completed(caller_of(request), job_id)
        return await asyncio.to_thread(_rendered, services, view, output)

    @routes.get("/{transcription_id}/events", response_class=Response, **documented(events=True))
    async def events(transcription_id: str, request: Request) -> Response:
        """What happens to it, as server-sent events, from its beginning or `Last-Event-ID` to its end."""
        after = last_event_id(request)
        if services.job_watch is None:
            raise InvalidRequest("this server takes no jobs")
        return await event_stream(
            services.job_watch,
            services.transcriptions,
            caller_of(request),
            known_id(transcription_id, _WHAT),
            after=after,
            ping_interval_s=config.ping_interval_s,
        )

    @routes.post("/{transcription_id}/cancel", response_model=JobOut, **documented(conflict=True))
    async def cancel(transcription_id: str, request: Request) -> Response:
        """Stop it: at once where it waits, within seconds where it is worked on."""
        job = await jobs_of(services).cancel(caller_of(request), known_id(transcription_id, _WHAT))
        return json_reply(job_document(await jobs_of(services).show(caller_of(request), job.id, whole=False)))

    @routes.post(
        "/{transcription_id}/retry", status_code=202, response_model=JobOut, **documented(conflict=True)
    )
    async def retry(transcription_id: str, request: Request) -> Response:
        """Work on a failed or cancelled one again; it goes on after what was done."""
        job = await jobs_of(services).retry(caller_of(request), known_id(transcription_id, _WHAT))
        view = await jobs_of(services).show(caller_of(request), job.id, whole=False)
        return json_reply(job_document(view), 202, {"Location": f"/v1/transcriptions/{job.id}"})

    @routes.delete("/{transcription_id}", status_code=204, response_class=Response, **documented())
    async def erase(transcription_id: str, request: Request) -> Response:
        """Stop it where it is not over, and leave nothing of it: audio, text, events, the row."""
        await jobs_of(services).erase(caller_of(request), known_id(transcription_id, _WHAT))
        return Response(status_code=204)

    return routes


def _whole(services: Services, view: JobView) -> Response:
    assert view.transcript is not None
    return json_reply(job_document(view) | services.transcriptions.document(view.transcript))


def _rendered(services: Services, view: JobView, output: str) -> Response:
    assert view.transcript is not None
    words = bool(view.job.options.get("words"))
    rendered = services.transcriptions.render(view.transcript, output, words=words)
    return Response(rendered.body, media_type=rendered.media_type)


class _NoQuery(BaseModel):
    model_config = {"extra": "forbid"}


def read_query(request: Request, model: type[M]) -> M:
    """
    Raises:
        InvalidRequest, UnsupportedOption: names the parameter.
    """
    return parse(model, Fields(request.query_params.multi_items()).as_input(model))


def page(documents: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """
    Args:
        documents: one more than `limit` where there is another page.
    """
    shown = documents[:limit]
    return {"data": shown, "next_cursor": cursor_of(shown[-1]["id"]) if len(documents) > limit else None}


_ERROR = {"model": schemas.ErrorOut}


def documented(
    query: type[BaseModel] | None = None, *, conflict: bool = False, events: bool = False
) -> dict[str, Any]:
    """The arguments that tell OpenAPI what FastAPI cannot see."""
    responses: dict[int, dict[str, Any]] = {
        401: {**_ERROR, "description": "The API key is missing or wrong."},
        404: {**_ERROR, "description": "You have nothing of that id."},
        422: {**_ERROR, "description": "A parameter is wrong; `field` and `choices` tell more."},
        503: {**_ERROR, "description": "The database does not answer; see `Retry-After`."},
    }
    if conflict:
        responses[409] = {**_ERROR, "description": "Its status does not allow that; the message says which."}
    told: dict[str, Any] = {"responses": responses}
    if events:
        shapes = [body_schema(EventOut), body_schema(ProgressOut)]
        responses[200] = {
            "description": "Events until it is over; `event:` names the type.",
            "content": {
                "text/event-stream": {"schema": {"anyOf": shapes, "description": "One per `data:`."}}
            },
        }
        responses[204] = {"description": "It is over, and you have seen all."}
        header = {"name": LAST_ID_HEADER, "in": "header", "required": False, "schema": {"type": "integer"}}
        told["openapi_extra"] = {"parameters": [header]}
    if query is not None:
        told["openapi_extra"] = {"parameters": query_parameters(query)}
    return told
