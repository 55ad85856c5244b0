"""Refuses who asks too often, before more than the head is read, and tells all others how much is left.

    RateLimit-Policy: "tenant";q=600;w=60       what holds
    RateLimit: "tenant";r=599;t=60              how it stands

as the IETF's draft has them, and the three fields of its earlier versions, for the window that ends first.
A surface may have fields of its own besides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from voiceforge.api.http.asgi import STARTED
from voiceforge.api.http.auth import CALLER, OPEN_PATHS
from voiceforge.api.http.errors import ErrorReplies
from voiceforge.errors import RateLimited, UploadTooLarge, VoiceForgeError
from voiceforge.services.access import OWNER, Caller
from voiceforge.services.ledger import Ledger
from voiceforge.services.limits import WINDOW_S, Limits, Rates, What

QUOTA_FIELD = "X-Quota-Warning"
"""There is more of a month used than should be."""

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})

OwnFields = Callable[[Rates], Mapping[str, str]]


class RateLimits:
    """
    Args:
        own_fields: of surfaces, by name.
        ledger: None: nobody has a quota.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        replies: ErrorReplies,
        own_fields: Mapping[str, OwnFields],
        ledger: Ledger | None = None,
    ) -> None:
        self._app = app
        self._limits = limits
        self._replies = replies
        self._own_fields = own_fields
        self._ledger = ledger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in OPEN_PATHS):
            await self._app(scope, receive, send)
            return
        # Where nobody is asked who they are, only their address counts.
        caller: Caller = scope.get(CALLER, OWNER)
        rates = await self._limits.spend(caller, caller.address or _peer(scope))
        fields = {} if rates is None else self._fields(scope, rates)
        if self._ledger is not None and caller.tier is not None:
            await self._ledger.look(caller)
            fields |= self._warnings(self._ledger, caller)
        if rates is not None and rates.refused is not None:
            await self._refuse(rates.refusal(), fields, scope, receive, send)
        elif caller.tier is None and caller.key_tier is None:
            await self._app(scope, receive, _with(fields, send))
        else:
            await self._within(caller, fields, scope, receive, send)

    async def _within(
        self, caller: Caller, fields: Mapping[str, str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """With what may be in progress at once, and no more of a body than may be sent."""
        what: What | None = None
        if scope["type"] == "websocket":
            what = "streams"
        elif scope["method"] in _WITH_BODY:
            what = "requests"
            try:
                self._limits.check_upload(caller, _announced_bytes(Headers(scope=scope)))
            except UploadTooLarge as error:
                await self._refuse(error, fields, scope, receive, send)
                return
            receive = _bounded(receive, self._limits, caller)
        async with AsyncExitStack() as stack:
            if what is not None:
                try:
                    await stack.enter_async_context(self._limits.at_once(caller, what))
                except RateLimited as error:
                    await self._refuse(error, fields, scope, receive, send)
                    return
            await self._app(scope, receive, _with(fields, send))

    async def _refuse(
        self,
        error: VoiceForgeError,
        fields: Mapping[str, str],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        await self._replies.reply(scope, error, headers=fields)(scope, receive, send)

    @staticmethod
    def _warnings(ledger: Ledger, caller: Caller) -> dict[str, str]:
        warnings = [quota.warning for quota in ledger.quotas(caller) if quota.warning is not None]
        return {QUOTA_FIELD: warnings[-1]} if warnings else {}

    def _fields(self, scope: Scope, rates: Rates) -> dict[str, str]:
        first = rates.tightest
        fields = {
            "RateLimit-Policy": ", ".join(f'"{rate.by}";q={rate.most};w={WINDOW_S}' for rate in rates.all),
            "RateLimit": ", ".join(
                f'"{rate.by}";r={rate.remaining};t={math.ceil(rate.reset_s)}' for rate in rates.all
            ),
            "RateLimit-Limit": str(first.most),
            "RateLimit-Remaining": str(first.remaining),
            "RateLimit-Reset": str(math.ceil(first.reset_s)),
        }
        own = self._own_fields.get(self._replies.surface_for(scope["path"]).name)
        return fields if own is None else fields | dict(own(rates))


def _with(fields: Mapping[str, str], send: Send) -> Send:
    if not fields:
        return send

    async def send_with_fields(message: Message) -> None:
        if message["type"] in STARTED:
            message.setdefault("headers", [])
            headers = MutableHeaders(scope=message)
            for name, value in fields.items():
                headers[name] = value
        await send(message)

    return send_with_fields


def _announced_bytes(headers: Headers) -> int:
    """By this request, or by those that follow it (tus)."""
    told = (headers.get("content-length", ""), headers.get("upload-length", ""))
    return max((int(length) for length in told if length.isdecimal()), default=0)


def _bounded(receive: Receive, limits: Limits, caller: Caller) -> Receive:
    """For bodies that do not say how long they are."""
    if limits.most_upload_bytes(caller) is None:
        return receive
    received_bytes = 0

    async def receive_bounded() -> Message:
        nonlocal received_bytes
        message = await receive()
        received_bytes += len(message.get("body", b""))
        limits.check_upload(caller, received_bytes)
        return message

    return receive_bounded


def _peer(scope: Scope) -> str | None:
    client = scope.get("client")
    return client[0] if client else None
