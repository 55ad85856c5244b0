"""Fetching over HTTP under a guard: limits on bytes, time, silence and redirects; no proxies, no cookies.

Speaks httpcore directly, because its network backend is the one place through which every connection,
of every redirect, must pass.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import httpcore
import httpx

from voiceforge.errors import DeadlineExceeded, UploadTooLarge, UpstreamFailed, UrlRefused
from voiceforge.infra.fetch.base import Fetched
from voiceforge.infra.fetch.failures import failures_told
from voiceforge.infra.fetch.guard import GuardedBackend, Resolver, check_url, resolve

CONNECT_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 20.0
WRITE_BYTES = 1 << 20

_REDIRECTS = frozenset((301, 302, 303, 307, 308))


class HttpFetcher:
    """See `Fetcher`.

    Args:
        max_bytes: of the file, decompressed where the server compresses it against our wish.
        timeout_s: for everything, redirects included. silence_s: between two pieces.
        allow_hosts, resolver: see `GuardedBackend`.
        ssl_context: None: the usual authorities.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        timeout_s: float = 60.0,
        max_redirects: int = 5,
        allow_hosts: Collection[str] = (),
        silence_s: float = SILENCE_TIMEOUT_S,
        resolver: Resolver = resolve,
        network: httpcore.AsyncNetworkBackend | None = None,
        ssl_context: Callable[[], ssl.SSLContext] = httpcore.default_ssl_context,
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._max_redirects = max_redirects
        self._silence_s = silence_s
        self._backend = GuardedBackend(
            network or httpcore.AnyIOBackend(), resolver=resolver, allow_hosts=allow_hosts
        )
        self._ssl_context = ssl_context

    async def fetch(self, url: str, target: Path) -> Fetched:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(check_url(url), target)
        except TimeoutError as error:
            self._discard(target)
            raise DeadlineExceeded(
                f"the URL was not fetched within {self._timeout_s:g} seconds", field="url"
            ) from error
        except BaseException:
            self._discard(target)
            raise

    async def _follow(self, url: httpx.URL, target: Path) -> Fetched:
        for _ in range(self._max_redirects + 1):
            async with self._get(url) as response:
                headers = _headers(response)
                if response.status in _REDIRECTS and "location" in headers:
                    url = _next(url, headers["location"])
                    continue
                if response.status != 200:
                    raise UpstreamFailed(f"{url.host} answered {response.status}", field="url")
                size_bytes = await self._save(response, url.host, headers, target)
                return Fetched(size_bytes, headers.get("content-type"), url.host)
        raise UrlRefused(f"the URL redirects more than {self._max_redirects} times", field="url")

    @asynccontextmanager
    async def _get(self, url: httpx.URL) -> AsyncIterator[httpcore.Response]:
        """One request on a connection of its own, so that the backend judges every hop."""
        context = await asyncio.to_thread(self._ssl_context) if url.scheme == "https" else None
        timeouts = {
            "connect": CONNECT_TIMEOUT_S,
            "read": self._silence_s,
            "write": self._silence_s,
            "pool": None,
        }
        core_url = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        headers: Mapping[bytes | str, bytes | str] = {
            "Host": url.netloc.decode("ascii"),
            "User-Agent": "voiceforge",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        with failures_told(url.host):
            async with (
                httpcore.AsyncConnectionPool(ssl_context=context, network_backend=self._backend) as pool,
                pool.stream("GET", core_url, headers=headers, extensions={"timeout": timeouts}) as response,
            ):
                yield response

    async def _save(
        self, response: httpcore.Response, host: str, headers: dict[str, str], target: Path
    ) -> int:
        declared = headers.get("content-length", "")
        if declared.isascii() and declared.isdecimal() and int(declared) > self._max_bytes:
            raise self._too_large()
        decoder = _decoder(headers.get("content-encoding", ""), host)
        received = written = 0
        waiting = bytearray()
        with target.open("wb") as sink:
            async for chunk in response.aiter_stream():
                received += len(chunk)
                if received > self._max_bytes:
                    raise self._too_large()
                for piece in decoder.decode(chunk):
                    written += len(piece)
                    if written > self._max_bytes:
                        raise self._too_large()
                    waiting += piece
                    if len(waiting) >= WRITE_BYTES:
                        await _write(sink, waiting)
            decoder.finish()
            await _write(sink, waiting)
        return written

    def _too_large(self) -> UploadTooLarge:
        return UploadTooLarge(f"the URL leads to more than {self._max_bytes} bytes", field="url")

    @staticmethod
    def _discard(target: Path) -> None:
        target.unlink(missing_ok=True)


async def _write(sink: BinaryIO, waiting: bytearray) -> None:
    block = bytes(waiting)
    waiting.clear()
    await asyncio.to_thread(sink.write, block)


def _headers(response: httpcore.Response) -> dict[str, str]:
    return {
        name.decode("ascii", "replace").lower(): value.decode("latin-1") for name, value in response.headers
    }


def _next(url: httpx.URL, location: str) -> httpx.URL:
    try:
        joined = url.join(location)
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise UrlRefused("the URL redirects to something malformed", field="url") from error
    return check_url(joined)


class _Identity:
    def decode(self, chunk: bytes) -> Iterator[bytes]:
        yield chunk

    def finish(self) -> None:
        """Nothing is held back; a short body is noticed by the HTTP layer."""


class _Inflate:
    """Undoes a compression we did not ask for, in pieces of bounded size."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._inflater = zlib.decompressobj(wbits=47)  # gzip or zlib, as the data says

    def decode(self, chunk: bytes) -> Iterator[bytes]:
        while chunk:
            try:
                yield self._inflater.decompress(chunk, WRITE_BYTES)
            except zlib.error as error:
                raise UpstreamFailed(f"{self._host} sent damaged compressed content", field="url") from error
            chunk = self._inflater.unconsumed_tail

    def finish(self) -> None:
        if not self._inflater.eof:
            raise UpstreamFailed(f"{self._host} broke off", field="url")


def _decoder(encoding: str, host: str) -> _Identity | _Inflate:
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return _Identity()
    if name in ("gzip", "x-gzip", "deflate"):
        return _Inflate(host)
    raise UpstreamFailed(f"{host} sent content in an encoding we did not ask for", field="url")
