"""A VoiceForge server as commands see it: jobs in and out over its HTTP API, its errors as ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from voiceforge.errors import (
    Conflict,
    InvalidRequest,
    ModelNotFound,
    ModelNotInstalled,
    NotFound,
    Unauthenticated,
    Unavailable,
    UnsupportedOption,
    VoiceForgeError,
)

_PATH = "/v1/transcriptions"
_PATIENCE = httpx.Timeout(60.0, connect=10.0)
_AGAIN_AFTER_S = 1.0
_OURS: Mapping[str, type[VoiceForgeError]] = {
    kind.code: kind
    for kind in (
        Conflict,
        InvalidRequest,
        ModelNotFound,
        ModelNotInstalled,
        NotFound,
        Unauthenticated,
        Unavailable,
        UnsupportedOption,
    )
}
_KINDS: Mapping[str, type[VoiceForgeError]] = {
    "invalid_request": InvalidRequest,
    "unsupported_option": UnsupportedOption,
    "not_found": NotFound,
    "unavailable": Unavailable,
}


@dataclass(frozen=True, slots=True)
class JobEvent:
    """type: as the API calls it. job: what it says."""

    type: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Document:
    body: str
    media_type: str


class ServerClient:
    """Args:
    url: of the server, without a path.
    key: where it wants one.
    """

    def __init__(self, url: str, key: str | None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=_PATIENCE)
            if self._http.base_url.scheme not in ("http", "https") or not self._http.base_url.host:
                raise InvalidRequest("the server's URL looks like http://127.0.0.1:8000", field="server")
        except httpx.InvalidURL:
            raise InvalidRequest("the server's URL is malformed", field="server") from None

    async def __aenter__(self) -> ServerClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._http.aclose()

    async def submit(
        self,
        source: Path | str,
        fields: Mapping[str, Any],
        *,
        name: str | None = None,
        key: str | None = None,
    ) -> dict[str, Any]:
        """A new job.

        Args:
            source: a file, or the URL of one.
            fields: options of the API.
            key: for `Idempotency-Key`.
        """
        headers = {"Idempotency-Key": key} if key is not None else {}
        wanted = {"mode": "async", **fields}
        if isinstance(source, str):
            reply = await self._send("POST", _PATH, json={**wanted, "url": source}, headers=headers)
        else:
            form = {name: _as_text(value) for name, value in wanted.items()}
            with _opened(source) as file:
                files = {"file": (source.name, file, "application/octet-stream")}
                reply = await self._send("POST", _PATH, data=form, files=files, headers=headers)
        return _json(reply)

    async def show(self, job_id: str) -> dict[str, Any]:
        return _json(await self._send("GET", f"{_PATH}/{job_id}"))

    async def list(self, **query: Any) -> dict[str, Any]:
        chosen = {name: value for name, value in query.items() if value is not None}
        return _json(await self._send("GET", _PATH, params=chosen))

    async def result(self, job_id: str, fmt: str) -> Document:
        reply = await self._send("GET", f"{_PATH}/{job_id}/result", params={"format": fmt})
        return Document(reply.text, reply.headers.get("content-type", "").partition(";")[0])

    async def cancel(self, job_id: str) -> dict[str, Any]:
        return _json(await self._send("POST", f"{_PATH}/{job_id}/cancel"))

    async def retry(self, job_id: str) -> dict[str, Any]:
        return _json(await self._send("POST", f"{_PATH}/{job_id}/retry"))

    async def erase(self, job_id: str) -> None:
        await self._send("DELETE", f"{_PATH}/{job_id}")

    async def ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """Anything that is answered with a JSON object. more: as httpx has it."""
        return _json(await self._send(method, path, **more))

    async def tell(self, method: str, path: str, **more: Any) -> None:
        """Likewise, without an answer."""
        await self._send(method, path, **more)

    async def watch(self, job_id: str) -> AsyncGenerator[JobEvent, None]:
        """What happens to it, until it is over. A server that was there and goes away is waited for.

        Raises:
            NotFound, Unavailable
        """
        last, seen = "0", False
        while True:
            try:
                async for number, event in self._events(job_id, last):
                    last, seen = number or last, True
                    if event.type != "error":
                        yield event
            except Unavailable:
                if not seen:
                    raise
            with contextlib.suppress(Unavailable):
                job = await self.show(job_id)
                if job["status"] in ("completed", "failed", "cancelled"):
                    return
            await asyncio.sleep(_AGAIN_AFTER_S)

    async def _events(self, job_id: str, last: str) -> AsyncIterator[tuple[str | None, JobEvent]]:
        headers = {"Last-Event-ID": last}
        with _failures_told(str(self._http.base_url)):
            async with self._http.stream("GET", f"{_PATH}/{job_id}/events", headers=headers) as reply:
                if reply.is_error:
                    await reply.aread()
                    raise _error_in(reply)
                fields: dict[str, str] = {}
                async for line in reply.aiter_lines():
                    if line:
                        name, _, value = line.partition(": ")
                        fields[name] = value
                    elif "data" in fields:
                        kind = fields.get("event", "message")
                        yield fields.get("id"), JobEvent(kind, json.loads(fields["data"]))
                        fields = {}

    async def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        with _failures_told(str(self._http.base_url)):
            reply = await self._http.request(method, path, **more)
        if reply.is_error:
            raise _error_in(reply)
        return reply


@contextlib.contextmanager
def _failures_told(url: str) -> Any:
    try:
        yield
    except httpx.ConnectError as error:
        raise Unavailable(f"no server answers at {url}; start one with `voiceforge serve`") from error
    except httpx.TransportError as error:
        raise Unavailable(f"the connection to {url} broke off: {type(error).__name__}") from error


@contextlib.contextmanager
def _opened(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise VoiceForgeError(f"{path} cannot be read: {error.strerror}") from error


def _error_in(reply: httpx.Response) -> VoiceForgeError:
    return error_in(reply.content, reply.status_code)


def error_in(body: bytes, status: int) -> VoiceForgeError:
    """What a server said in a reply that tells an error."""
    try:
        told = json.loads(body)["error"]
        kind = _OURS.get(told["code"]) or _KINDS.get(told["kind"]) or VoiceForgeError
        return kind(str(told["message"]), field=told["field"], choices=[str(one) for one in told["choices"]])
    except (ValueError, KeyError, TypeError):
        return VoiceForgeError(f"the server answered {status}, which is not VoiceForge's way")


def _json(reply: httpx.Response) -> dict[str, Any]:
    try:
        document = reply.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise VoiceForgeError("the server answered with something that is no VoiceForge's answer")
    return document


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return json.dumps(value)
    return value if isinstance(value, (list, tuple)) else str(value)
