"""Request bodies on their way in: multipart forms, raw audio, JSON; checked while they arrive.

What enters is the request's byte stream, what leaves is `Fields` and recordings with their digests:
in memory where they are small, else in temp files. The size limit bites at the byte that crosses it. Knows
nothing of what the fields mean.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from voiceforge.api.http.bodies import read_as_upload
from voiceforge.api.http.forms import Fields
from voiceforge.api.http.spool import (
    FILE_FIELD,
    WRITE_BYTES,
    Spool,
    Upload,
    spool_for,
    upload_too_large,
)
from voiceforge.api.http.temp_files import RequestFiles, files_of
from voiceforge.errors import EmptyAudio, InvalidRequest

__all__ = ["FILE_FIELD", "Form", "FormFile", "OnFile", "Upload", "Uploads"]

# Of several recordings in one form, only smaller ones stay in memory.
_SMALL_OF_MANY_BYTES = 64 * 1024
_IDLE_SLACK = 0.1  # so much longer may an idle upload live; to set the timer for every piece costs more
# Speech in the narrowest codecs comes faster; who sends a byte now and then only holds a connection.
_SLOWEST_BYTES_PER_S = 250
_MAX_PARTS = 300
_LONGEST_FILE_NAME = 255
# OpenAI's `known_speaker_references[]` are recordings inside text fields: four of 10 s as base64 fit.
_MAX_TEXT_BYTES = 16 * 1024 * 1024
_FORM_OVERHEAD_BYTES = _MAX_TEXT_BYTES + 1024 * 1024

OnFile = Callable[[Fields], int | None]
"""See `Uploads.form`."""


@dataclass(frozen=True, slots=True)
class FormFile:
    """filename: as the client says, without folders; None where that is no name. upload: None where it was
    empty."""

    filename: str | None
    upload: Upload | None


@dataclass(frozen=True, slots=True)
class Form:
    fields: Fields
    files: tuple[FormFile, ...] = ()

    @property
    def upload(self) -> Upload | None:
        return self.files[0].upload if self.files else None

    @property
    def filename(self) -> str | None:
        return self.files[0].filename if self.files else None


class Uploads:
    """Reads bodies within one server's limits."""

    def __init__(self, max_upload_bytes: int, idle_s: float) -> None:
        self._max_upload_bytes = max_upload_bytes
        self._idle_s = idle_s

    async def form(self, request: Request, on_file: OnFile | None = None, *, many: bool = False) -> Form:
        """Read a multipart form.

        Args:
            on_file: called with the fields so far when a file part begins; what it raises refuses
                the upload before it has arrived. What it returns is the size it may have, and that it is
                to stay in memory; None: as usual.
            many: several files may come, which share the limit of one; empty ones are not refused here.

        Raises:
            InvalidRequest: not multipart, broken, or with too many or too large text fields.
            UploadTooLarge, EmptyAudio
        """
        boundary = parse_options_header(request.headers.get("content-type"))[1].get(b"boundary")
        if not boundary:
            raise InvalidRequest("the multipart body's Content-Type has no boundary")
        self._check_declared(request, _FORM_OVERHEAD_BYTES)
        reader = _FormReader(files_of(request.scope), self._max_upload_bytes, on_file, many=many)
        try:
            parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": reader.on_part_begin,
                    "on_part_data": reader.on_part_data,
                    "on_part_end": reader.on_part_end,
                    "on_header_field": reader.on_header_field,
                    "on_header_value": reader.on_header_value,
                    "on_header_end": reader.on_header_end,
                    "on_headers_finished": reader.on_headers_finished,
                    "on_end": reader.on_end,
                },
            )
            received = 0

            def take(piece: bytes) -> Awaitable[None] | None:
                nonlocal received
                received += len(piece)
                if received > self._max_upload_bytes + _FORM_OVERHEAD_BYTES:
                    raise upload_too_large(self._max_upload_bytes)
                parser.write(piece)
                return reader.writing_if_full()

            await self._read(request, take)
        except FormParserError as error:
            raise InvalidRequest("the multipart body is malformed") from error
        return await reader.finish()

    async def raw(self, request: Request, *, memory_bytes: int | None = None) -> Upload:
        """Read a body that is the audio itself.

        Args:
            memory_bytes: the size it may have, where it is to stay in memory.
        """
        self._check_declared(request, 0)
        spool = spool_for(files_of(request.scope), self._max_upload_bytes, memory_bytes)

        def take(piece: bytes) -> Awaitable[None] | None:
            spool.take(piece)
            return spool.writing_if_full()

        await self._read(request, take)
        return await spool.finish()

    async def json_object(self, request: Request) -> dict[str, object]:
        body = bytearray()
        async for piece in request.stream():
            body += piece
        try:
            value = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest("the body is not JSON") from error
        if not isinstance(value, dict):
            raise InvalidRequest("the body is not a JSON object")
        return value

    def _check_declared(self, request: Request, overhead_bytes: int) -> None:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_upload_bytes + overhead_bytes:
            raise upload_too_large(self._max_upload_bytes)

    async def _read(self, request: Request, take: Callable[[bytes], Awaitable[None] | None]) -> None:
        """Hand the body on, piece by piece.

        Raises:
            InvalidRequest: nothing came for too long, or as good as nothing.
            ClientDisconnect
        """
        read_as_upload(request.scope, watched=True)
        clock = asyncio.get_running_loop().time
        patience_s = self._idle_s * (1 + _IDLE_SLACK)
        try:
            async with asyncio.timeout(patience_s) as idle:
                began = set_at = clock()
                received = 0
                while True:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    piece = message.get("body", b"")
                    received += len(piece)
                    if piece and (writing := take(piece)) is not None:
                        idle.reschedule(None)  # a slow disk is not the client's fault
                        writes_at = clock()
                        await writing
                        began += clock() - writes_at
                        set_at = 0.0
                    if not message.get("more_body", False):
                        return
                    if (now := clock()) - set_at > self._idle_s * _IDLE_SLACK:
                        idle.reschedule(min(now, began + received / _SLOWEST_BYTES_PER_S) + patience_s)
                        set_at = now
        except TimeoutError:
            raise InvalidRequest(
                f"the upload brought nothing for {self._idle_s:g} s, or less than "
                f"{_SLOWEST_BYTES_PER_S} bytes a second"
            ) from None


class _FormReader:
    """The multipart parser's callbacks: one part at a time, text into memory, the file to its spool."""

    def __init__(
        self,
        files: RequestFiles,
        max_upload_bytes: int,
        on_file: OnFile | None,
        *,
        many: bool,
    ) -> None:
        self._files = files
        self._many = many
        self._spools: list[tuple[str | None, Spool]] = []
        self._max_upload_bytes = max_upload_bytes
        self._on_file = on_file
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._parts = 0
        self._name = ""
        self._text = bytearray()
        self._text_bytes = 0
        self._take: Callable[[bytes | memoryview], None] = self._take_text
        self._pairs: list[tuple[str, str]] = []
        self._settled = 0
        self._ended = False

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise InvalidRequest(f"the form has more than {_MAX_PARTS} parts")
        self._disposition = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def on_headers_finished(self) -> None:
        options = parse_options_header(self._disposition)[1]
        name = options.get(b"name")
        if name is None:
            raise InvalidRequest("a part of the form has no name")
        self._name = _utf8(name, "a part's name")
        if self._name == FILE_FIELD:
            if self._spools and not self._many:
                raise InvalidRequest("the form has more than one file", field=FILE_FIELD)
            memory_bytes = None
            if self._on_file is not None:
                memory_bytes = self._on_file(Fields(self._pairs))
            small_bytes = _SMALL_OF_MANY_BYTES if self._many else WRITE_BYTES - 1
            spool = spool_for(self._files, self._max_upload_bytes, memory_bytes, small_bytes)
            self._spools.append((_file_name(options.get(b"filename")), spool))
            self._take = spool.take
        elif b"filename" in options:
            # Not read: a file under another name is a mistake to name, not a field to keep in memory.
            raise InvalidRequest(
                f"the file came as form field {self._name[:100]!r}; it is expected as {FILE_FIELD!r}",
                field=FILE_FIELD,
            )
        else:
            self._text = bytearray()
            self._take = self._take_text

    def _take_text(self, data: bytes | memoryview) -> None:
        self._text_bytes += len(data)
        if self._text_bytes > _MAX_TEXT_BYTES:
            raise InvalidRequest(f"the form's text fields hold more than {_MAX_TEXT_BYTES:,} bytes")
        self._text += data

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._take(memoryview(data)[start:end])

    def on_part_end(self) -> None:
        if self._name == FILE_FIELD:
            self._spools[-1][1].end()
        else:
            self._pairs.append((self._name, _utf8(self._text, self._name[:100])))

    def on_end(self) -> None:
        self._ended = True

    def writing_if_full(self) -> Awaitable[None] | None:
        # All but the last have ended; a piece from the network may have ended several.
        for _, spool in self._spools[self._settled : -1]:
            if (writing := spool.writing_if_full()) is not None:
                return self._settle_ended(writing)
            self._settled += 1
        return self._spools[-1][1].writing_if_full() if self._spools else None

    async def _settle_ended(self, writing: Awaitable[None] | None) -> None:
        while writing is not None:
            await writing
            writing = self.writing_if_full()

    async def finish(self) -> Form:
        if not self._ended:
            raise InvalidRequest("the multipart body ends before its closing boundary")
        files = [FormFile(name, await self._finished(spool)) for name, spool in self._spools]
        return Form(Fields(self._pairs), tuple(files))

    async def _finished(self, spool: Spool) -> Upload | None:
        try:
            return await spool.finish()
        except EmptyAudio:
            if not self._many:
                raise
            return None


def _file_name(given: bytes | None) -> str | None:
    """Without folders, which old browsers send, and without what no name has."""
    name = re.split(r"[/\\]", (given or b"").decode("utf-8", "replace"))[-1]
    return re.sub(r"[\x00-\x1f\x7f]", "", name).strip()[:_LONGEST_FILE_NAME] or None


def _utf8(data: bytes | bytearray, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"{what} is not UTF-8 text") from None
