"""A request body in any of its three shapes (multipart, the audio itself, JSON with a URL) becomes one
`Intake`: the recording, the options, the output format, and what a job is to carry. What can be refused early
is."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from voiceforge.api.http.answers import wanted_cache_use
from voiceforge.api.http.auth import caller_of
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.http.forms import Fields, parse
from voiceforge.api.http.uploads import FILE_FIELD, Upload, Uploads
from voiceforge.api.native.convert import transcribe_options, wanted_format
from voiceforge.api.native.errors import NativeErrors
from voiceforge.api.native.job_convert import (
    check_job_options,
    idempotency_key,
    job_request,
    refuse_job_options,
)
from voiceforge.api.native.schemas import Options
from voiceforge.errors import InvalidRequest, UnsupportedOption
from voiceforge.services.job_intake import JobRequest
from voiceforge.services.recordings import AudioFile, Source, UrlSource
from voiceforge.services.result_cache import CacheUse
from voiceforge.services.transcriptions import TranscribeRequest, Transcriptions
from voiceforge.speech.options import TranscribeOptions

if TYPE_CHECKING:
    from voiceforge.services.uploads import Uploads as UploadsInPieces

RAW_TYPES = ("audio/*", "video/*", "application/octet-stream", "application/ogg")
_REMEMBERED_OPTIONS = frozenset({"model", "format", "language", "task", "words", "channels"})
"""Nothing personal, and few values."""
_MOST_REMEMBERED = 256
_LONGEST_REMEMBERED = 500

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
class _Asked:
    """What a request asks for, whoever sent it."""

    given: Options
    options: TranscribeOptions
    format: str


@dataclass(frozen=True, slots=True)
class _Wish:
    given: Options
    options: TranscribeOptions
    format: str
    model: str

    @property
    def leaves_nothing(self) -> bool:
        """Answered at once, and nothing of it may touch the disk."""
        return self.given.retention == "none" and self.given.mode == "sync"


class Reception:
    """Args:
    in_pieces: None where no such uploads are taken.
    """

    def __init__(
        self, transcriptions: Transcriptions, config: HttpConfig, in_pieces: UploadsInPieces | None = None
    ) -> None:
        self._in_pieces = in_pieces
        self._transcriptions = transcriptions
        self._config = config
        self._uploads = Uploads(config.max_upload_bytes, config.upload_idle_s)
        self._asked: dict[Hashable, _Asked] = {}

    async def receive(self, request: Request, held: AsyncExitStack) -> Intake:
        """Read the whole request.

        Args:
            held: what the intake needs until it was dealt with.

        Raises:
            InvalidRequest, UnsupportedOption: names the field; before the recording is read where it can be.
            ModelNotFound, ModelNotInstalled, UploadTooLarge, EmptyAudio
            NotFound, Conflict: an `upload_id` is none, or not of a finished one.
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
            return await self._from_form(request, query, held)
        if content_type == "application/json":
            body = await self._uploads.json_object(request)
            wish = self._wish(request, {**query.as_input(Options), **body})
            return self._intake(request, wish, *await self._uploaded(request, wish, held))
        if not _is_raw(content_type):
            raise UnsupportedOption(
                f"Content-Type {content_type[:100]!r} is none of {', '.join(BODY_TYPES)}",
                field="Content-Type",
                choices=BODY_TYPES,
            )
        if in_query.given.upload_id is not None:
            raise InvalidRequest(
                "send upload_id in a form or as JSON, without a recording", field="upload_id"
            )
        memory_bytes = self._config.unkept_upload_bytes if in_query.leaves_nothing else None
        return self._intake(request, in_query, await self._uploads.raw(request, memory_bytes=memory_bytes))

    async def _from_form(self, request: Request, query: Fields, held: AsyncExitStack) -> Intake:
        def on_file(fields: Fields) -> int | None:
            """Refuse an unknown model before gigabytes arrive for it. Other fields may still follow."""
            known = query + fields
            self._transcriptions.check(caller_of(request), known.text("model"), self._config.defaults)
            leaves_nothing = known.text("retention") == "none" and known.text("mode") != "async"
            return self._config.unkept_upload_bytes if leaves_nothing else None

        form = await self._uploads.form(request, on_file=on_file)
        fields = query + form.fields
        wish = self._wish(request, fields.as_input(Options))
        if wish.leaves_nothing and isinstance(form.upload, AudioFile):
            raise InvalidRequest("send retention before the file, or in the query", field="retention")
        if form.upload is None:
            return self._intake(request, wish, *await self._uploaded(request, wish, held))
        if wish.given.upload_id is not None:
            raise InvalidRequest("send a file or an upload_id, not both", field="upload_id")
        return self._intake(request, wish, form.upload, form.filename)

    async def _uploaded(
        self, request: Request, wish: _Wish, held: AsyncExitStack
    ) -> tuple[Upload | None, str | None]:
        """What was uploaded before, in pieces, and its name."""
        if wish.given.upload_id is None:
            return None, None
        if self._in_pieces is None:
            raise InvalidRequest("this server takes no uploads in pieces", field="upload_id")
        keep = wish.given.retention != "none"
        source = self._in_pieces.source(caller_of(request), wish.given.upload_id, keep=keep)
        uploaded = await held.enter_async_context(source)
        return uploaded.audio, uploaded.filename

    def _wish(self, request: Request, values: Mapping[str, Any]) -> _Wish:
        """Everything about the options that can be known without the recording."""
        asked = self._understood(values, request.headers.get("accept"))
        model = self._transcriptions.check(caller_of(request), asked.given.model, asked.options)
        return _Wish(asked.given, asked.options, asked.format, model)

    def _understood(self, values: Mapping[str, Any], accept: str | None) -> _Asked:
        """Most requests ask for the same, and to check it takes as long as to find an earlier result."""
        plain = values.keys() <= _REMEMBERED_OPTIONS and all(type(value) is str for value in values.values())
        if not plain:
            return self._understand(values, accept)
        key = (accept, *values.items())
        found = self._asked.get(key)
        if found is None:
            found = self._understand(values, accept)
            if len(repr(key)) <= _LONGEST_REMEMBERED:
                self._asked[key] = found
                if len(self._asked) > _MOST_REMEMBERED:
                    del self._asked[next(iter(self._asked))]
        return found

    def _understand(self, values: Mapping[str, Any], accept: str | None) -> _Asked:
        given = parse(Options, values)
        if given.mode == "async":
            check_job_options(given)
        else:
            refuse_job_options(given)
        # The answer that takes a job is JSON, whatever the result is to be fetched as.
        output = wanted_format(given.format, None if given.mode == "async" else accept)
        formats = self._transcriptions.formats()
        if output not in formats:
            raise UnsupportedOption(
                f"format {output[:100]!r} is not one of: {', '.join(formats)}",
                field="format",
                choices=formats,
            )
        options = transcribe_options(given, self._config.defaults)
        if self._transcriptions.timed_options(options, output) and not options.words:
            options = replace(options, words=True)
        return _Asked(given, options, output)

    def _intake(
        self, request: Request, wish: _Wish, upload: Upload | None, filename: str | None = None
    ) -> Intake:
        url = wish.given.url
        if url is not None and not self._config.features.url_input:
            raise InvalidRequest("transcribing from a URL is switched off on this server", field="url")
        if url is not None and wish.leaves_nothing:
            raise InvalidRequest(
                "what stands at a url is fetched to a file: with retention=none, send the recording itself",
                field="url",
            )
        work = TranscribeRequest(
            source=_source(url, upload),
            options=wish.options,
            model=wish.model,
            caller=caller_of(request),
            cache=CacheUse.NONE if wish.leaves_nothing else wanted_cache_use(request),
            deadline_s=wish.given.timeout_s,
            door=NativeErrors.name,
        )
        job = None
        if wish.given.mode == "async":
            key = idempotency_key(request)
            job = job_request(
                wish.given,
                work.caller,
                work.source,
                wish.options,
                wish.model,
                filename,
                key,
                self._config.unkept_text_s,
            )
        return Intake(work, wish.format, wish.given.words, job)


def _source(url: str | None, upload: Upload | None) -> Source:
    if upload is not None and url is not None:
        raise InvalidRequest("send a file or a url, not both", field="url")
    if upload is not None:
        return upload
    if url is not None:
        return UrlSource(url)
    raise InvalidRequest(
        "there is no recording: send it as 'file', as the body, as a url, or an upload_id", field=FILE_FIELD
    )


def _is_raw(content_type: str) -> bool:
    return (
        not content_type
        or content_type.startswith(("audio/", "video/"))
        or content_type in ("application/octet-stream", "application/ogg")
    )
