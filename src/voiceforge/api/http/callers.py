"""By what name and from which web page the server is called, before anything is done for the caller.

A browser lets any page send requests to any address: with a name that points here (DNS rebinding) or straight
across. Where a key is asked for, the page does not have it; where none is, only these two headers tell a page
from a program.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from voiceforge.api.http.errors import ErrorReplies
from voiceforge.errors import InvalidRequest, PermissionDenied

_MOST_REMEMBERED = 256
_DEFAULT_PORTS = (":80", ":443")
_SHOWN_CHARS = 100


@dataclass(frozen=True, slots=True)
class CallerRules:
    """
    hosts: names by which the server may be called, `*.example.org` for all below one; None: by any.
    addresses: also by any address, which no web page can have pointed here.
    origins: of web pages that may call, besides those of this server; `*`: all.
    open: no key is asked for, so that pages are judged on plain requests too, not only on sockets.
    """

    hosts: Sequence[str] | None = None
    addresses: bool = False
    origins: Sequence[str] = ()
    open: bool = False


class CheckCallers:
    """
    Args:
        exempt: paths that are asked by name and address alike: health checks.
    """

    def __init__(
        self, app: ASGIApp, rules: CallerRules, replies: ErrorReplies, exempt: frozenset[str] = frozenset()
    ) -> None:
        self._app = app
        self._replies = replies
        self._exempt = exempt
        self._open = rules.open
        hosts = rules.hosts if rules.hosts is not None and "*" not in rules.hosts else None
        self._any_host = hosts is None
        self._addresses = rules.addresses
        self._names = frozenset(name.strip("[]") for name in hosts or ())
        self._endings = tuple(name[1:] for name in hosts or () if name.startswith("*."))
        self._any_origin = "*" in rules.origins
        self._origins = frozenset(rules.origins)
        self._known_hosts: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in self._exempt:
            await self._app(scope, receive, send)
            return
        host = origin = None
        for name, value in scope["headers"]:
            if name == b"host":
                # Of two, those in between may have looked at the other.
                known = self._any_host or value in self._known_hosts or self._is_ours(value)
                if host is not None or not known:
                    await self._refuse_host(value, scope, receive, send)
                    return
                host = value
            elif name == b"origin":
                origin = value
        if host is None and not self._any_host:
            await self._refuse_host(b"", scope, receive, send)
            return
        judged = origin is not None and (self._open or scope["type"] == "websocket")
        if judged and not self._is_welcome(origin or b"", host or b""):
            error = PermissionDenied(
                f"pages of {_shown(origin or b'')} may not call this server; server.cors_origins names those "
                "that may"
            )
            await self._replies.reply(scope, error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _refuse_host(self, host: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        error = InvalidRequest(
            f"this server is not called {_shown(host)}; server.allowed_hosts names what it is called"
        )
        await self._replies.reply(scope, error)(scope, receive, send)

    def _is_ours(self, value: bytes) -> bool:
        name = _name_in(value)
        ours = name in self._names or name.endswith(self._endings) or (self._addresses and _is_address(name))
        if ours and len(self._known_hosts) < _MOST_REMEMBERED:
            self._known_hosts.add(value)
        return ours

    def _is_welcome(self, origin: bytes, host: bytes) -> bool:
        if self._any_origin:
            return True
        text = origin.decode("latin-1").lower()
        return text in self._origins or _bare(text.partition("://")[2]) == _bare(
            host.decode("latin-1").lower()
        )


def _name_in(host: bytes) -> str:
    """Without port and brackets; empty where that is no name."""
    try:
        return urlsplit(f"//{host.decode('ascii')}").hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _bare(authority: str) -> str:
    """Without a port that goes without saying."""
    for port in _DEFAULT_PORTS:
        authority = authority.removesuffix(port)
    return authority


def _shown(value: bytes) -> str:
    return repr(value[:_SHOWN_CHARS].decode("latin-1"))
