"""Sending over HTTP under the guard of URLs: public addresses only, one connection per message, no redirects,
no proxies, and no more time than is given."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import ssl
import time
from collections.abc import Callable, Collection, Mapping

import httpcore
import httpx

from voiceforge.errors import DeadlineExceeded
from voiceforge.infra.fetch.failures import failures_told
from voiceforge.infra.fetch.guard import GuardedBackend, Resolver, check_destination, check_url, resolve
from voiceforge.infra.webhooks.base import Receipt

# A receiver that is cut off while it still answers may log an error: what it says is read, if it is short.
_READ_BYTES = 64 * 1024
_READ_S = 1.0
_ASKS_TO_WAIT = frozenset((429, 503))


class HttpWebhookSender:
    """See `WebhookSender`.

    Args:
        timeout_s: for everything, from the look-up of the name to the head of the answer.
        allow_hosts, resolver: see `GuardedBackend`.
        ssl_context: None: the usual authorities.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 10.0,
        allow_hosts: Collection[str] = (),
        resolver: Resolver = resolve,
        network: httpcore.AsyncNetworkBackend | None = None,
        ssl_context: Callable[[], ssl.SSLContext] = httpcore.default_ssl_context,
    ) -> None:
        self._timeout_s = timeout_s
        self._allow_hosts = allow_hosts
        self._resolver = resolver
        self._backend = GuardedBackend(
            network or httpcore.AnyIOBackend(), resolver=resolver, allow_hosts=allow_hosts
        )
        self._make_context = ssl_context
        self._context: ssl.SSLContext | None = None

    async def check(self, url: str) -> None:
        await check_destination(url, resolver=self._resolver, allow_hosts=self._allow_hosts)

    async def send(
        self, url: str, headers: Mapping[str, str], body: bytes, *, method: str = "POST"
    ) -> Receipt:
        parsed = check_url(url)
        try:
            async with asyncio.timeout(self._timeout_s) as limit:
                return await self._send(method, parsed, headers, body, limit)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"{parsed.host} did not answer within {self._timeout_s:g} seconds", field="url"
            ) from error

    async def _send(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], body: bytes, limit: asyncio.Timeout
    ) -> Receipt:
        context = await self._tls() if url.scheme == "https" else None
        core_url = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        sent: dict[bytes | str, bytes | str] = {
            "Host": url.netloc.decode("ascii"),
            "User-Agent": "voiceforge-webhooks",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        sent.update(headers.items())
        with failures_told(url.host):
            async with (
                httpcore.AsyncConnectionPool(ssl_context=context, network_backend=self._backend) as pool,
                pool.stream(method, core_url, headers=sent, content=body) as response,
            ):
                receipt = Receipt(response.status, _retry_after_s(response))
                limit.reschedule(None)
                await _read_a_little(response)
                return receipt

    async def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = await asyncio.to_thread(self._make_context)
        return self._context


async def _read_a_little(response: httpcore.Response) -> None:
    """The status has said all there is to know: nothing that goes wrong from here on matters."""
    read = 0
    with contextlib.suppress(TimeoutError, httpcore.NetworkError, httpcore.ProtocolError):
        async with asyncio.timeout(_READ_S):
            async for piece in response.aiter_stream():
                read += len(piece)
                if read > _READ_BYTES:
                    return


def _retry_after_s(response: httpcore.Response) -> float | None:
    """What `Retry-After` says: seconds, or a date."""
    if response.status not in _ASKS_TO_WAIT:
        return None
    for name, value in response.headers:
        if name.lower() == b"retry-after":
            text = value.decode("latin-1").strip()
            if text.isascii() and text.isdecimal() and len(text) < 10:
                return float(text)
            with contextlib.suppress(ValueError, OverflowError):
                return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    return None
