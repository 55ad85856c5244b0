"""What every reply says to browsers and to caches: it is data, it is nobody else's, keep it not."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STARTS = frozenset({"http.response.start", "websocket.http.response.start"})
_CACHE_CONTROL = (b"cache-control", b"no-store")
_HSTS = (b"strict-transport-security", b"max-age=31536000")
_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_SECURE = frozenset({"https", "wss"})


class ResponseHeaders:
    """Adds what a reply does not say itself. Strict transport only where the request came by TLS.

    Args:
        public: paths that begin so hold the same for everybody, and may be kept.
    """

    def __init__(self, app: ASGIApp, *, public: str | None = None) -> None:
        self._app = app
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] in _STARTS:
                headers = [*message.get("headers", ()), *_ALWAYS]
                told = {name for name, _ in headers}
                if b"cache-control" not in told and not self._is_public(scope["path"]):
                    headers.append(_CACHE_CONTROL)
                if b"content-security-policy" not in told:
                    headers.append(_POLICY)
                if scope["scheme"] in _SECURE:
                    headers.append(_HSTS)
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _is_public(self, path: str) -> bool:
        return self._public is not None and path.startswith(self._public)
