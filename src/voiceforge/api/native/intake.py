"""A request body in any of its three shapes (multipart, the audio itself, JSON with a URL) becomes one
`Intake`: the recording, the options, the output format, and what a job is to carry. What can be refused early
is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request

from voiceforge.api.http.answers import wanted_cache_use
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.http.forms import Fields, parse
from voiceforge.api.http.uploads import FILE_FIELD, Upload, Uploads
from voiceforge.api.native.convert import transcribe_options, wanted_format
from voiceforge.api.native.job_convert import (
    check_job_options,
    idempotency_key,
    job_request,
    refuse_job_options,
)
from voiceforge.api.native.schemas import Options
from voiceforge.errors import InvalidRequest, UnsupportedOption
from voiceforge.services.jobs import JobRequest
from voiceforge.services.recordings import Source, UrlSource
from voiceforge.services.transcriptions import TranscribeRequest, Transcriptions
from voiceforge.speech.options import TranscribeOptions

RAW_TYPES = ("audio/*", "video/*", "application/octet-stream", "application/ogg")
BODY_TYPES = ("multipart/form-data", "application/json", *RAW_TYPES)


@dataclass(frozen=True, slots=True)
class Intake:
    """words: the caller asked for word times (they may be computed for captions without that). job: what is
    to be done in its own time; None: the caller waits for it."""

    work: TranscribeRequest
    format: str
    words: bool
    job: JobRequest | None = None


@dataclass(frozen=True, slots=True)
class _Wish:
    given: Options
    options: TranscribeOptions
    format: str
    model: str


class Reception:
    def __init__(self, transcriptions: Transcriptions, config: HttpConfig) -> None:
        self._transcriptions = transcriptions
        self._config = config
        self._uploads = Uploads(config.max_upload_bytes, config.upload_idle_s)

    async def receive(self, request: Request) -> Intake:
        """Read the whole request.

        Raises:
            InvalidRequest, UnsupportedOption: names the field; before the recording is read where it can be.
            ModelNotFound, ModelNotInstalled, UploadTooLarge, EmptyAudio
        """
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        query = Fields(request.query_params.multi_items())
        for name in ("url", "callback_url"):
            if query.text(name) is not None:
                raise InvalidRequest(
                    f"send {name} in the body: queries end up in other people's logs", field=name
                )
        in_query = self._wish(request, query.as_input(Options))
        if content_type == "multipart/form-data":
            return await self._from_form(request, query)
        if content_type == "application/json":
            body = await self._uploads.json_object(request)
            return self._intake(request, self._wish(request, {**query.as_input(Options), **body}), None)
        if not _is_raw(content_type):
            raise UnsupportedOption(
                f"Content-Type {content_type[:100]!r} is none of {', '.join(BODY_TYPES)}",
                field="Content-Type",
                choices=BODY_TYPES,
            )
        return self._intake(request, in_query, await self._uploads.raw(request))

    async def _from_form(self, request: Request, query: Fields) -> Intake:
        def refuse_unknown_model(fields: Fields) -> None:
            """Before gigabytes arrive for it. Other fields may still follow the file."""
            self._transcriptions.check((query + fields).text("model"), self._config.defaults)

        form = await self._uploads.form(request, on_file=refuse_unknown_model)
        fields = query + form.fields
        wish = self._wish(request, fields.as_input(Options))
        return self._intake(request, wish, form.upload, form.filename)

    def _wish(self, request: Request, values: Mapping[str, Any]) -> _Wish:
        """Everything about the options that can be known without the recording."""
        given = parse(Options, values)
        if given.mode == "async":
            check_job_options(given)
        else:
            refuse_job_options(given)
        # The answer that takes a job is JSON, whatever the result is to be fetched as.
        accept = None if given.mode == "async" else request.headers.get("accept")
        output = wanted_format(given.format, accept)
        formats = self._transcriptions.formats()
        if output not in formats:
            raise UnsupportedOption(
                f"format {output[:100]!r} is not one of: {', '.join(formats)}",
                field="format",
                choices=formats,
            )
        options = transcribe_options(given, self._config.defaults)
        model = self._transcriptions.check(given.model, options)
        if self._transcriptions.timed_options(options, output) and not options.words:
            options = replace(options, words=True)
        return _Wish(given, options, output, model)

    def _intake(
        self, request: Request, wish: _Wish, upload: Upload | None, filename: str | None = None
    ) -> Intake:
        url = wish.given.url
        if url is not None and not self._config.features.url_input:
            raise InvalidRequest("transcribing from a URL is switched off on this server", field="url")
        work = TranscribeRequest(
            source=_source(url, upload),
            options=wish.options,
            model=wish.model,
            cache=wanted_cache_use(request),
            deadline_s=wish.given.timeout_s,
        )
        job = None
        if wish.given.mode == "async":
            key = idempotency_key(request)
            job = job_request(wish.given, work.source, wish.options, wish.model, filename, key)
        return Intake(work, wish.format, wish.given.words, job)


def _source(url: str | None, upload: Upload | None) -> Source:
    if upload is not None and url is not None:
        raise InvalidRequest("send a file or a url, not both", field="url")
    if upload is not None:
        return upload
    if url is not None:
        return UrlSource(url)
    raise InvalidRequest(
        "there is no recording: send it as 'file', as the body, or as a url", field=FILE_FIELD
    )


def _is_raw(content_type: str) -> bool:
    return (
        not content_type
        or content_type.startswith(("audio/", "video/"))
        or content_type in ("application/octet-stream", "application/ogg")
    )
