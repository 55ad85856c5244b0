"""`POST /v1/transcriptions`, and the plain `POST /transcribe`."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from voiceforge.api.http.answers import answered
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.http.forms import FILE_SCHEMA, body_schema, query_parameters
from voiceforge.api.http.uploads import FILE_FIELD
from voiceforge.api.native import schemas
from voiceforge.api.native.intake import RAW_TYPES, Reception
from voiceforge.api.native.job_convert import IDEMPOTENCY_HEADER
from voiceforge.api.native.job_schemas import JobOut
from voiceforge.api.native.jobs import accepted
from voiceforge.errors import InvalidRequest
from voiceforge.services.container import Services
from voiceforge.services.transcriptions import Rendered
from voiceforge.speech.transcript import Transcript


def router(services: Services, config: HttpConfig) -> APIRouter:
    routes = APIRouter()
    reception = Reception(services.transcriptions, config, services.uploads)

    @routes.post(
        "/v1/transcriptions", tags=["Transcription"], **_documented(services.transcriptions.formats())
    )
    async def transcribe(request: Request) -> Response:
        """Transcribe a recording: a form's `file`, the body itself, or a `url`. With `mode=async` it is
        transcribed in its own time, and the answer is where to ask after it."""
        async with AsyncExitStack() as held:
            intake = await reception.receive(request, held)
            if intake.job is not None:
                return await accepted(services, intake.job)
            shape = ("native", intake.format, intake.words)
            render = partial(services.transcriptions.render, fmt=intake.format, words=intake.words)
            return await answered(request, services.transcriptions, intake.work, shape, render)

    @routes.post("/transcribe", tags=["Transcription"], response_model=schemas.PlainOut, **_documented(None))
    async def transcribe_plainly(request: Request) -> Response:
        """Transcribe a recording; takes the same options, answers with the text and little else."""
        async with AsyncExitStack() as held:
            intake = await reception.receive(request, held)
            if intake.job is not None:
                raise InvalidRequest("this path has no mode=async; POST /v1/transcriptions has", field="mode")
            return await answered(request, services.transcriptions, intake.work, "plain", _plainly)

    return routes


def _plainly(transcript: Transcript) -> Rendered:
    document = schemas.PlainOut(
        text=transcript.text,
        language=transcript.language.code if transcript.language else None,
        duration=round(transcript.duration, 3),
        processing_s=round(transcript.processing_s, 3),
        rtf=round(transcript.rtf, 4),
    )
    return Rendered(document.model_dump_json(), "application/json")


_ERROR = {"model": schemas.ErrorOut}
_IN_BODIES_ONLY = frozenset({"url", "callback_url"})


def _documented(formats: tuple[str, ...] | None) -> dict[str, Any]:
    """The arguments that tell OpenAPI what FastAPI cannot see: bodies are read by hand, as they arrive.

    formats: the output formats; None where the route's own return type documents the answer.
    """
    responses: dict[int, dict[str, Any]] = {
        401: {**_ERROR, "description": "The API key is missing or wrong."},
        404: {**_ERROR, "description": "No such model, or it is not installed."},
        413: {**_ERROR, "description": "The upload is too large."},
        422: {
            **_ERROR,
            "description": "An option or the recording is wrong; `field` and `choices` tell more.",
        },
        429: {**_ERROR, "description": "Too much is waiting; `Retry-After` says when to come back."},
        500: {**_ERROR, "description": "Our fault; the log has more under the request id."},
        502: {**_ERROR, "description": "The server of the `url` failed."},
        503: {**_ERROR, "description": "Not ready yet; see `Retry-After`."},
    }
    documented: dict[str, Any] = {
        "responses": responses,
        "openapi_extra": {
            "parameters": [
                *(p for p in query_parameters(schemas.Options) if p["name"] not in _IN_BODIES_ONLY),
                {"name": IDEMPOTENCY_HEADER, "in": "header", "required": False, "schema": {"type": "string"}},
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "multipart/form-data": {
                        "schema": body_schema(schemas.Options, extra={FILE_FIELD: FILE_SCHEMA})
                    },
                    "application/json": {"schema": body_schema(schemas.Options, required=("url",))},
                    **{kind: {"schema": FILE_SCHEMA} for kind in RAW_TYPES},
                },
            },
        },
    }
    if formats is not None:
        documented["response_class"] = Response
        responses[202] = {
            "model": JobOut,
            "description": "With `mode=async`: accepted; `Location` is its address.",
        }
        responses[409] = {**_ERROR, "description": "The `Idempotency-Key` came with another request."}
        responses[507] = {**_ERROR, "description": "There is no room for it."}
        responses[200] = {
            "model": schemas.TranscriptOut,
            "description": f"The transcript; `format` is one of {', '.join(formats)}.",
            "content": {
                kind: {"schema": {"type": "string"}}
                for kind in ("text/plain", "text/vtt", "application/x-subrip", "text/tab-separated-values")
            },
        }
    return documented
