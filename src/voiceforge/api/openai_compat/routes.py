"""`POST /v1/audio/transcriptions` and `/v1/audio/translations` as OpenAI's clients call them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from voiceforge.api.http.answers import answered, wanted_cache_use
from voiceforge.api.http.auth import caller_of
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.http.forms import FILE_SCHEMA, Fields, body_schema, parse
from voiceforge.api.http.uploads import FILE_FIELD, Upload, Uploads
from voiceforge.api.openai_compat import schemas
from voiceforge.api.openai_compat.convert import (
    Wish,
    json_document,
    transcription_wish,
    translation_wish,
    verbose_document,
)
from voiceforge.api.openai_compat.errors import OpenAIErrors
from voiceforge.api.openai_compat.stream import transcript_stream
from voiceforge.errors import InvalidRequest
from voiceforge.services.access import Caller
from voiceforge.services.container import Services
from voiceforge.services.transcriptions import Rendered, TranscribeRequest
from voiceforge.speech.transcript import Transcript

# OpenAI's name of a format, ours where it is another.
_RENDERED = {"text": "txt", "srt": "srt", "vtt": "vtt"}


def router(services: Services, config: HttpConfig) -> APIRouter:
    routes = APIRouter(prefix="/v1/audio", tags=["OpenAI"])
    uploads = Uploads(config.max_upload_bytes, config.upload_idle_s)

    async def receive(request: Request) -> tuple[Fields, Upload]:
        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise InvalidRequest("send the recording as multipart/form-data, in the field 'file'")
        form = await uploads.form(request, on_file=partial(refuse_unknown_model, caller_of(request)))
        if form.upload is None:
            raise InvalidRequest("the form has no file; send the recording as 'file'", field=FILE_FIELD)
        return form.fields, form.upload

    def refuse_unknown_model(caller: Caller, fields: Fields) -> None:
        """Before gigabytes arrive for it. The other fields may still follow the file."""
        services.transcriptions.check(caller, fields.text("model"), config.defaults)

    def request_for(request: Request, wish: Wish, upload: Upload) -> TranscribeRequest:
        model = services.transcriptions.check(caller_of(request), wish.model, wish.options)
        # Subtitles are laid out by the times of words, though the reply names none.
        timed = services.transcriptions.timed_options(wish.options, wish.response_format)
        return TranscribeRequest(
            source=upload,
            options=replace(wish.options, words=timed),
            model=model,
            caller=caller_of(request),
            cache=wanted_cache_use(request),
            door=OpenAIErrors.name,
        )

    def document(transcript: Transcript, wish: Wish) -> Rendered:
        if wish.response_format == "json":
            return _json(json_document(transcript, wish.notes).model_dump())
        if wish.response_format == "verbose_json":
            rendered = services.transcriptions.render(transcript, "verbose_json", words=wish.words)
            return _json(verbose_document(rendered.body, transcript, wish))
        return services.transcriptions.render(transcript, _RENDERED[wish.response_format])

    async def answer(request: Request, work: TranscribeRequest, wish: Wish) -> Response:
        notes = tuple(note.message for note in wish.notes)
        shape = ("openai", wish.response_format, wish.segments, wish.words, notes)
        return await answered(request, services.transcriptions, work, shape, partial(document, wish=wish))

    @routes.post("/transcriptions", **_documented(schemas.TranscriptionFields, stream=True))
    async def create_transcription(request: Request) -> Response:
        """Transcribe a recording."""
        fields, upload = await receive(request)
        given = parse(schemas.TranscriptionFields, fields.as_input(schemas.TranscriptionFields))
        wish = transcription_wish(given, config.defaults)
        work = request_for(request, wish, upload)
        if wish.stream:
            return transcript_stream(
                services.transcriptions.events(work),
                notes=wish.notes,
                ping_interval_s=config.ping_interval_s,
            )
        return await answer(request, work, wish)

    @routes.post("/translations", **_documented(schemas.TranslationFields, stream=False))
    async def create_translation(request: Request) -> Response:
        """Transcribe a recording into English, whatever is spoken."""
        fields, upload = await receive(request)
        given = parse(schemas.TranslationFields, fields.as_input(schemas.TranslationFields))
        wish = translation_wish(given, config.defaults)
        work = request_for(request, wish, upload)
        return await answer(request, work, wish)

    return routes


def _json(document: dict[str, Any]) -> Rendered:
    return Rendered(
        json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")), "application/json"
    )


def _documented(fields: type[BaseModel], *, stream: bool) -> dict[str, Any]:
    """The arguments that tell OpenAPI what FastAPI cannot see: the form is read by hand, as it arrives."""
    content: dict[str, Any] = {
        kind: {"schema": {"type": "string"}} for kind in ("text/plain", "application/x-subrip", "text/vtt")
    }
    if stream:
        events = [body_schema(event) for event in (schemas.TextDelta, schemas.TextDone)]
        content["text/event-stream"] = {
            "schema": {"anyOf": events, "description": "One per `data:` line; the last one is `done`."}
        }
    failure = {"model": schemas.ErrorOut}
    return {
        "response_class": Response,
        "responses": {
            200: {
                "model": schemas.JsonOut | schemas.VerboseOut,
                "description": "The transcript, in the shape `response_format` names.",
                "content": content,
            },
            400: {**failure, "description": "The request or the recording is malformed."},
            401: {**failure, "description": "The API key is missing or wrong."},
            404: {**failure, "description": "No such model, or it is not installed."},
            413: {**failure, "description": "The upload is too large."},
            422: {
                **failure,
                "description": "Something this server or model cannot do; `message` lists choices.",
            },
            429: {**failure, "description": "Too much is waiting; `Retry-After` says when to come back."},
            500: {**failure, "description": "Our fault; the log has more under the `x-request-id`."},
            503: {**failure, "description": "Not ready yet; see `Retry-After`."},
        },
        "openapi_extra": {
            "requestBody": {
                "required": True,
                "content": {
                    "multipart/form-data": {
                        "schema": body_schema(fields, extra={FILE_FIELD: FILE_SCHEMA}, required=(FILE_FIELD,))
                    }
                },
            }
        },
    }
