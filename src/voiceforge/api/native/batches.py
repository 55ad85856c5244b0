"""`/v1/batches`: many recordings in one request, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from voiceforge.api.http.auth import caller_of
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.http.forms import FILE_SCHEMA, body_schema, parse
from voiceforge.api.http.uploads import FILE_FIELD, FormFile, Uploads
from voiceforge.api.native.batch_schemas import (
    BatchPageOut,
    BatchQuery,
    BatchWithItemsOut,
    ItemOptions,
    ItemsQuery,
    SharedOptions,
)
from voiceforge.api.native.convert import transcribe_options
from voiceforge.api.native.job_convert import (
    check_job_options,
    id_before,
    idempotency_key,
    iso_time,
    job_document,
    job_request,
    known_id,
)
from voiceforge.api.native.jobs import REPLAYED_HEADER, documented, json_reply, page, read_query
from voiceforge.api.native.schemas import ErrorOut, Options
from voiceforge.errors import (
    EmptyAudio,
    InvalidRequest,
    StorageFull,
    Unavailable,
    UnsupportedOption,
    VoiceForgeError,
)
from voiceforge.services.access import Caller
from voiceforge.services.batch_view import BatchView
from voiceforge.services.batches import Batches, BatchRequest
from voiceforge.services.job_intake import JobRequest
from voiceforge.services.recordings import Source, UrlSource
from voiceforge.services.transcriptions import Transcriptions
from voiceforge.speech.options import TranscribeOptions

if TYPE_CHECKING:
    from voiceforge.services.uploads import Uploads as UploadsInPieces

_MOST_ITEMS = 1000
_WHAT = "batch"
_OF_THE_BATCH = frozenset({"items", "metadata"})


class BatchReception:
    """Reads the body of a request for a batch."""

    def __init__(
        self, transcriptions: Transcriptions, config: HttpConfig, in_pieces: UploadsInPieces | None = None
    ) -> None:
        self._in_pieces = in_pieces
        self._transcriptions = transcriptions
        self._config = config
        self._uploads = Uploads(config.max_upload_bytes, config.upload_idle_s)

    async def receive(self, request: Request, held: AsyncExitStack) -> BatchRequest:
        """
        Args:
            held: what the items need until the batch was dealt with.

        Raises:
            InvalidRequest, UnsupportedOption: what all items share is wrong, or there is none.
            ModelNotFound, ModelNotInstalled, UploadTooLarge, Unavailable
        """
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        key = idempotency_key(request)
        caller = caller_of(request)
        if content_type == "application/json":
            body = await self._uploads.json_object(request)
            shared = self._shared(caller, body)
            items = [await self._item(caller, one, body, held) for one in shared.items or ()]
        elif content_type == "multipart/form-data":
            form = await self._uploads.form(request, many=True)
            fields = form.fields.as_input(SharedOptions)
            shared = self._shared(caller, fields)
            if shared.items is not None:
                raise InvalidRequest("items come as JSON; in a form, each recording is a file", field="items")
            items = [self._upload(caller, one, fields) for one in form.files]
        else:
            choices = ("application/json", "multipart/form-data")
            raise UnsupportedOption(
                f"Content-Type {content_type[:100]!r} is none of {', '.join(choices)}",
                field="Content-Type",
                choices=choices,
            )
        if not items:
            raise InvalidRequest("there is no recording in this batch", field="items")
        if len(items) > _MOST_ITEMS:
            raise InvalidRequest(
                f"a batch has up to {_MOST_ITEMS} items; this has {len(items)}", field="items"
            )
        return BatchRequest(items, caller, shared.metadata or {}, shared.callback_url, key)

    def _shared(self, caller: Caller, given: Mapping[str, Any]) -> SharedOptions:
        """What is wrong for all is refused at once."""
        shared = parse(SharedOptions, given)
        self._check(caller, shared)
        return shared

    async def _item(
        self, caller: Caller, item: Any, body: Mapping[str, Any], held: AsyncExitStack
    ) -> JobRequest | VoiceForgeError:
        try:
            if not isinstance(item, dict):
                raise InvalidRequest("an item is a JSON object with a url or an upload_id", field="items")
            own = parse(ItemOptions, {**_for_items(body), **item})
            if own.upload_id is not None:
                return await self._uploaded(caller, own, own.upload_id, held)
            if own.url is None:
                raise InvalidRequest("this item has neither url nor upload_id", field="url")
            if not self._config.features.url_input:
                raise InvalidRequest("transcribing from a URL is switched off on this server", field="url")
            return self._request(caller, own, UrlSource(own.url), None)
        except (Unavailable, StorageFull):
            raise
        except VoiceForgeError as error:
            return error

    async def _uploaded(
        self, caller: Caller, own: ItemOptions, upload_id: str, held: AsyncExitStack
    ) -> JobRequest:
        """What was uploaded before, in pieces."""
        if own.url is not None:
            raise InvalidRequest("an item has a url or an upload_id, not both", field="upload_id")
        if self._in_pieces is None:
            raise InvalidRequest("this server takes no uploads in pieces", field="upload_id")
        self._check(caller, own)
        source = self._in_pieces.source(caller, upload_id, keep=own.retention != "none")
        uploaded = await held.enter_async_context(source)
        return self._request(caller, own, uploaded.audio, uploaded.filename)

    def _upload(
        self, caller: Caller, file: FormFile, fields: Mapping[str, Any]
    ) -> JobRequest | VoiceForgeError:
        try:
            if file.upload is None:
                raise EmptyAudio("the upload is empty: it has 0 bytes", field=FILE_FIELD)
            return self._request(caller, parse(ItemOptions, _for_items(fields)), file.upload, file.filename)
        except VoiceForgeError as error:
            return error

    def _request(self, caller: Caller, given: Options, source: Source, filename: str | None) -> JobRequest:
        options, model = self._check(caller, given)
        kept_s = self._config.unkept_text_s
        return job_request(given, caller, source, options, model, filename, None, kept_s)

    def _check(self, caller: Caller, given: Options) -> tuple[TranscribeOptions, str]:
        check_job_options(given)
        options = transcribe_options(given, self._config.defaults)
        return options, self._transcriptions.check(caller, given.model, options)


def _for_items(shared: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in shared.items() if name not in _OF_THE_BATCH}


def router(
    batches: Batches,
    transcriptions: Transcriptions,
    config: HttpConfig,
    in_pieces: UploadsInPieces | None = None,
) -> APIRouter:
    routes = APIRouter(prefix="/v1/batches", tags=["Jobs"])
    reception = BatchReception(transcriptions, config, in_pieces)

    async def with_items(view: BatchView, query: ItemsQuery) -> dict[str, Any]:
        after = -1 if query.cursor is None else _index_in(query.cursor)
        found = await batches.items(view.batch, after=after, limit=query.limit)
        cursor = f"{found.items[-1].job.batch_index}" if found.more else None
        items = [{"index": item.job.batch_index, **job_document(item)} for item in found.items]
        return {**batch_document(view), "items": items, "next_cursor": cursor}

    @routes.post("", status_code=202, response_model=BatchWithItemsOut, **_documented_body())
    async def submit(request: Request) -> Response:
        """Transcribe many recordings, each in its own time: URLs as JSON, or files in a form."""
        async with AsyncExitStack() as held:
            submitted = await batches.submit(await reception.receive(request, held))
        headers = {"Location": f"/v1/batches/{submitted.view.batch.id}"}
        if not submitted.created:
            headers[REPLAYED_HEADER] = "true"
        return json_reply(await with_items(submitted.view, ItemsQuery()), 202, headers)

    @routes.get("", response_model=BatchPageOut, **documented(BatchQuery))
    async def list_batches(request: Request) -> Response:
        """The newest first."""
        query = read_query(request, BatchQuery)
        views = await batches.list(caller_of(request), before=id_before(query.cursor), limit=query.limit + 1)
        return json_reply(page([batch_document(view) for view in views], query.limit))

    @routes.get("/{batch_id}", response_model=BatchWithItemsOut, **documented(ItemsQuery))
    async def show(batch_id: str, request: Request) -> Response:
        """How many of its transcriptions are how far, and a page of them."""
        query = read_query(request, ItemsQuery)
        view = await batches.show(caller_of(request), known_id(batch_id, _WHAT))
        return json_reply(await with_items(view, query))

    @routes.delete("/{batch_id}", status_code=204, response_class=Response, **documented())
    async def erase(batch_id: str, request: Request) -> Response:
        """Stop what is not over, and erase it with all its transcriptions."""
        await batches.erase(caller_of(request), known_id(batch_id, _WHAT))
        return Response(status_code=204)

    return routes


def _index_in(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 4):
        raise InvalidRequest("this is no next_cursor that we gave", field="cursor")
    return int(cursor)


def batch_document(view: BatchView) -> dict[str, Any]:
    """A `BatchOut`."""
    batch = view.batch
    return {
        **view.summary(),
        "refused": [asdict(item) for item in batch.refused],
        "callback_url": batch.callback_url,
        "created_at": iso_time(batch.created_at),
    }


def _documented_body() -> dict[str, Any]:
    told = documented(conflict=True)
    error = {"model": ErrorOut}
    told["responses"][409] = {**error, "description": "The `Idempotency-Key` came with another request."}
    told["responses"][413] = {**error, "description": "The upload is too large."}
    told["responses"][507] = {**error, "description": "There is no room for it."}
    files = {FILE_FIELD: {"type": "array", "items": FILE_SCHEMA}}
    told["openapi_extra"] = {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": body_schema(SharedOptions, required=("items",))},
                "multipart/form-data": {"schema": body_schema(SharedOptions, extra=files)},
            },
        }
    }
    return told
