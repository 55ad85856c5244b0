"""`POST /v1/listen` as Deepgram's clients call it: the body is the recording, or JSON that names its URL."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from voiceforge.api.deepgram_compat import schemas
from voiceforge.api.deepgram_compat.callbacks import callback_request
from voiceforge.api.deepgram_compat.convert import Answered, listen_document
from voiceforge.api.deepgram_compat.errors import GRANT_PATH, PATH, DeepgramErrors
from voiceforge.api.deepgram_compat.wishes import Wish, listen_wish
from voiceforge.api.http.answers import CACHE_HEADER, wanted_cache_use
from voiceforge.api.http.auth import caller_of
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.http.disconnect import while_connected
from voiceforge.api.http.forms import FILE_SCHEMA, Fields, body_schema, parse, query_parameters
from voiceforge.api.http.request_id import request_id_of
from voiceforge.api.http.uploads import Uploads
from voiceforge.errors import InvalidRequest
from voiceforge.services.container import Services
from voiceforge.services.job_intake import JobRequest
from voiceforge.services.recordings import AudioBytes, AudioFile, Source, UrlSource, file_digest
from voiceforge.services.short_tokens import ShortTokens
from voiceforge.services.transcriptions import TranscribeRequest
from voiceforge.speech.transcript import Transcript


def router(services: Services, config: HttpConfig, tokens: ShortTokens) -> APIRouter:
    routes = APIRouter(tags=["Deepgram"])
    uploads = Uploads(config.max_upload_bytes, config.upload_idle_s)

    async def receive(request: Request) -> Source:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            return await uploads.raw(request)
        body = parse(schemas.UrlBody, await uploads.json_object(request))
        if not config.features.url_input:
            raise InvalidRequest("transcribing from a URL is switched off on this server", field="url")
        return UrlSource(body.url)

    async def transcribed(work: TranscribeRequest) -> tuple[Transcript, bytes]:
        """The transcript, and the digest of what was heard."""
        async with services.transcriptions.fetched(work.source) as source:
            if isinstance(source, Path):
                source = AudioFile(source, await asyncio.to_thread(file_digest, source))
            assert isinstance(source, AudioFile | AudioBytes)
            transcript = await services.transcriptions.transcribe(replace(work, source=source))
            return transcript, source.sha256

    def document(transcript: Transcript, wish: Wish, request: Request, sha256: bytes) -> str:
        answered = Answered(
            request_id=request_id_of(request.scope),
            sha256=sha256.hex(),
            created=datetime.now(UTC),
            family=services.models.get(transcript.model.id).family,
        )
        return listen_document(transcript, wish, answered).model_dump_json(exclude_none=True)

    async def accepted(job: JobRequest) -> Response:
        assert services.jobs is not None
        await services.jobs.submit(job)
        told = schemas.AcceptedOut(request_id=str(job.metadata["deepgram_request_id"]))
        return Response(told.model_dump_json(), media_type="application/json")

    @routes.post(PATH, **_documented())
    async def listen(request: Request) -> Response:
        """Transcribe a recording; with `callback`, in its own time."""
        fields = Fields(request.query_params.multi_items())
        query = parse(schemas.ListenQuery, fields.as_input(schemas.ListenQuery))
        caller = caller_of(request)
        wish = listen_wish(query, config.defaults)
        if query.callback is not None and services.jobs is None:
            raise InvalidRequest("this process takes no callbacks", field="callback")
        model = services.transcriptions.check(
            caller, wish.model, wish.options
        )  # before gigabytes arrive for it
        source = await receive(request)
        if query.callback is not None:
            pairs = request.query_params.multi_items()
            return await accepted(
                callback_request(query, pairs, caller, wish, source, model, request_id_of(request.scope))
            )
        work = TranscribeRequest(
            source=source,
            options=wish.options,
            model=model,
            caller=caller,
            cache=wanted_cache_use(request),
            door=DeepgramErrors.name,
        )
        transcript, sha256 = await while_connected(request, transcribed(work))
        body = await asyncio.to_thread(document, transcript, wish, request, sha256)
        hit = transcript.cached_at is not None
        return Response(body, media_type="application/json", headers={CACHE_HEADER: "hit" if hit else "miss"})

    @routes.post(GRANT_PATH, **_granting())
    async def grant(request: Request) -> Response:
        """A token for a browser: it ends soon, and with the key that it was made with."""
        headers = request.headers
        empty = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        asked = schemas.GrantBody() if empty else parse(schemas.GrantBody, await uploads.json_object(request))
        made = tokens.make(caller_of(request), asked.ttl_seconds)
        told = schemas.GrantOut(access_token=made.value, expires_in=max(made.expires_at - time.time(), 0))
        return Response(
            told.model_dump_json(), media_type="application/json", headers={"Cache-Control": "no-store"}
        )

    return routes


def _granting() -> dict[str, Any]:
    failure = {"model": schemas.ErrorOut}
    return {
        "response_class": Response,
        "responses": {
            200: {"model": schemas.GrantOut},
            400: {**failure, "description": "The body is wrong."},
            401: {**failure, "description": "The API key is missing or wrong."},
        },
        "openapi_extra": {
            "requestBody": {"content": {"application/json": {"schema": body_schema(schemas.GrantBody)}}}
        },
    }


def _documented() -> dict[str, Any]:
    """The arguments that tell OpenAPI what FastAPI cannot see: query and body are read by hand."""
    failure = {"model": schemas.ErrorOut}
    return {
        "response_class": Response,
        "responses": {
            200: {
                "model": schemas.ListenOut | schemas.AcceptedOut,
                "description": "The transcript; with `callback`, the id under which it will be sent.",
            },
            400: {**failure, "description": "The query or the recording is wrong, or asks what is not here."},
            401: {**failure, "description": "The API key is missing or wrong."},
            413: {**failure, "description": "The upload is too large."},
            429: {**failure, "description": "Too much is waiting; `Retry-After` says when to come back."},
            500: {**failure, "description": "Our fault; the log has more under the `dg-request-id`."},
            503: {**failure, "description": "Not ready yet; see `Retry-After`."},
        },
        "openapi_extra": {
            "parameters": query_parameters(schemas.ListenQuery),
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": body_schema(schemas.UrlBody)},
                    "audio/*": {"schema": FILE_SCHEMA},
                    "application/octet-stream": {"schema": FILE_SCHEMA},
                },
            },
        },
    }
