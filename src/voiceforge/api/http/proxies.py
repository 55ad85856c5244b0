"""Who really calls, where a proxy stands in between and is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_network

from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware


def believing(proxies: Sequence[str], app: ASGIApp) -> ASGIApp:
    """`app` sees the address and the scheme that `proxies` tell it in `X-Forwarded-For` and
    `X-Forwarded-Proto`: of the addresses told, the last that is not one of theirs. Nobody else is believed.

    Args:
        proxies: addresses and networks.
    """
    networks = [str(ip_network(proxy, strict=False)) for proxy in proxies]
    return ProxyHeadersMiddleware(app, networks)  # type: ignore[arg-type, return-value]  # uvicorn's own types
