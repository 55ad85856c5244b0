"""The headers of the tus protocol, read and set."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voiceforge.errors import InvalidRequest, UnsupportedOption
from voiceforge.services.upload_turn import CHECKSUMS, Checksum

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,termination,expiration,checksum"
BODY_TYPE = "application/offset+octet-stream"
_MOST_METADATA_CHARS = 8192
_LONGEST_NAME = 255
_MOST_DIGITS = 15
_KEY = re.compile(r"[!-+\--~]+")  # ASCII without spaces and commas


def number_of(headers: Headers, name: str) -> int:
    """
    Raises:
        InvalidRequest: it is missing, or no whole number from 0 on.
    """
    text = headers.get(name, "")
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise InvalidRequest(f"{name} should be a number of bytes", field=name)
    return int(text)


def metadata_of(header: str | None) -> dict[str, str]:
    """From `key base64,key base64,key`.

    Raises:
        InvalidRequest
    """
    found: dict[str, str] = {}
    if not header or not header.strip():
        return found
    if len(header) > _MOST_METADATA_CHARS:
        raise _malformed()
    for pair in header.split(","):
        key, _, value = pair.strip().partition(" ")
        if _KEY.fullmatch(key) is None or key in found:
            raise _malformed()
        try:
            found[key] = base64.b64decode(value.strip(), validate=True).decode(errors="replace")
        except ValueError:
            raise _malformed() from None
    return found


def filename_of(metadata: Mapping[str, str]) -> str | None:
    """As clients name it, without folders and what is no text."""
    name = metadata.get("filename") or metadata.get("name") or ""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(char for char in last if char.isprintable())[:_LONGEST_NAME] or None


def checksum_of(header: str | None) -> Checksum | None:
    """From `algorithm base64`.

    Raises:
        UnsupportedOption, InvalidRequest
    """
    if header is None:
        return None
    algorithm, _, encoded = header.strip().partition(" ")
    if algorithm not in CHECKSUMS:
        raise UnsupportedOption(
            f"Upload-Checksum is one of {', '.join(CHECKSUMS)}", field="Upload-Checksum", choices=CHECKSUMS
        )
    try:
        return Checksum(algorithm, base64.b64decode(encoded.strip(), validate=True))
    except ValueError:
        raise InvalidRequest("the checksum is not base64", field="Upload-Checksum") from None


def _malformed() -> InvalidRequest:
    return InvalidRequest(
        "Upload-Metadata should be keys with base64 values, between commas", field="Upload-Metadata"
    )


class TusFrame:
    """Below `path`: every reply says which version it speaks, and a method may come in a header, from clients
    that have only POST."""

    def __init__(self, app: ASGIApp, path: str) -> None:
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(self._path):
            await self._app(scope, receive, send)
            return

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Tus-Resumable"] = VERSION
            await send(message)

        override = Headers(scope=scope).get("x-http-method-override", "").upper()
        if scope["method"] == "POST" and override in ("PATCH", "DELETE", "HEAD"):
            scope["method"] = override
        await self._app(scope, receive, send_with_version)
