"""Uploads in pieces, by the tus protocol: https://tus.io/protocols/resumable-upload (1.0.0)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from voiceforge.api.http.auth import caller_of
from voiceforge.api.http.bodies import read_as_upload
from voiceforge.api.native import schemas
from voiceforge.api.native.tus_headers import (
    BODY_TYPE,
    EXTENSIONS,
    VERSION,
    checksum_of,
    filename_of,
    metadata_of,
    number_of,
)
from voiceforge.errors import ChecksumMismatch, Unavailable
from voiceforge.services.container import Services
from voiceforge.services.upload_turn import CHECKSUMS
from voiceforge.services.uploads import Upload, Uploads

PATH = "/v1/uploads"
_CHECKSUM_STATUS = 460  # of the protocol's own


def router(services: Services) -> APIRouter:
    routes = APIRouter(tags=["Uploads"])

    def uploads() -> Uploads:
        if services.uploads is None:
            raise Unavailable("this process takes no uploads in pieces")
        return services.uploads

    async def append(request: Request, upload: Upload, offset: int) -> Upload:
        declared = request.headers.get("content-length", "")
        try:
            return await uploads().append(
                caller_of(request),
                upload.id,
                offset,
                _pieces(request),
                declared_bytes=int(declared) if declared.isdecimal() else None,
                checksum=checksum_of(request.headers.get("upload-checksum")),
            )
        except ChecksumMismatch as error:
            raise HTTPException(_CHECKSUM_STATUS, error.message) from error

    @routes.options(PATH, status_code=204, response_class=Response)
    async def abilities(request: Request) -> Response:
        """What of the tus protocol this server speaks, and the largest upload."""
        return Response(
            status_code=204,
            headers={
                "Tus-Version": VERSION,
                "Tus-Extension": EXTENSIONS,
                "Tus-Max-Size": str(uploads().max_bytes),
                "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
            },
        )

    @routes.post(PATH, status_code=201, response_class=Response, **_documented(413))
    async def create(request: Request) -> Response:
        """Begin an upload of `Upload-Length` bytes; `Location` says where its pieces go."""
        _check_version(request)
        length = number_of(request.headers, "Upload-Length")
        metadata = request.headers.get("upload-metadata")
        filename = filename_of(metadata_of(metadata))
        brings = request.headers.get("content-type", "").partition(";")[0].strip() == BODY_TYPE
        upload = await uploads().create(caller_of(request), length, metadata=metadata, filename=filename)
        if brings:
            upload = await append(request, upload, 0)
        location = f"{request.scope.get('root_path', '')}{PATH}/{upload.id}"
        return Response(status_code=201, headers={"Location": location, **_state(upload)})

    @routes.head(PATH + "/{upload_id}", response_class=Response, **_documented())
    async def show(request: Request, upload_id: str) -> Response:
        """How much of an upload is here: `Upload-Offset`."""
        _check_version(request)
        upload = await uploads().show(caller_of(request), upload_id)
        headers = {
            "Cache-Control": "no-store",
            "Upload-Length": str(upload.length_bytes),
            **({"Upload-Metadata": upload.metadata} if upload.metadata else {}),
        }
        return Response(status_code=200, headers=headers | _state(upload))

    @routes.patch(PATH + "/{upload_id}", status_code=204, response_class=Response, **_documented(409, 413))
    async def add(request: Request, upload_id: str) -> Response:
        """Bring more of an upload, from `Upload-Offset` on."""
        _check_version(request)
        if request.headers.get("content-type", "").partition(";")[0].strip() != BODY_TYPE:
            raise HTTPException(415, f"the Content-Type of a piece is {BODY_TYPE}")
        offset = number_of(request.headers, "Upload-Offset")
        upload = await uploads().find(caller_of(request), upload_id)
        return Response(status_code=204, headers=_state(await append(request, upload, offset)))

    @routes.delete(PATH + "/{upload_id}", status_code=204, response_class=Response, **_documented())
    async def remove(request: Request, upload_id: str) -> Response:
        """Remove an upload, finished or not."""
        _check_version(request)
        await uploads().remove(caller_of(request), upload_id)
        return Response(status_code=204)

    return routes


def _check_version(request: Request) -> None:
    if request.headers.get("tus-resumable") != VERSION:
        raise HTTPException(412, f"this server speaks tus {VERSION}", headers={"Tus-Version": VERSION})


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    read_as_upload(request.scope, watched=False)
    async for piece in request.stream():
        if piece:
            yield piece


def _state(upload: Upload) -> dict[str, str]:
    expires = formatdate(upload.expires_at, usegmt=True)
    return {"Upload-Offset": str(upload.offset_bytes), "Upload-Expires": expires}


_WHY = {
    404: "There is no such upload, or its time is over.",
    409: "The piece does not belong there; ask for the offset.",
    412: "Another version of the protocol.",
    413: "Larger than is taken, or than was said.",
}


def _documented(*more: int) -> dict[str, Any]:
    statuses = (404, 412, *more)
    return {
        "responses": {status: {"model": schemas.ErrorOut, "description": _WHY[status]} for status in statuses}
    }
