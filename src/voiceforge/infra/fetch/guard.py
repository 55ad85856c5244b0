"""Where a fetch may go: which URLs, which addresses, and a network backend that connects nowhere else.

The name is resolved here, every address it has is judged, and the connection goes to a judged address:
a name that answers differently the second time it is asked (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpcore
import httpx

from voiceforge.errors import UrlRefused

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port → its addresses as text. Raises OSError where there are none."""

MAX_URL_CHARS = 8192
_LOOK_UP_S = 2.0
_PORTS = {"http": 80, "https": 443}

# Globally routed by the registry, and yet not the public internet.
_REFUSED_V4 = (
    IPv4Network("192.0.0.0/24"),  # protocol assignments; older Pythons call most of it global
    IPv4Network("192.88.99.0/24"),  # relays into 6to4 (RFC 7526)
    IPv4Network("168.63.129.16/32"),  # a cloud's metadata and agent service on a public address
)
_GLOBAL_V6 = IPv6Network("2000::/3")  # all that is handed out (RFC 4291)
_REFUSED_V6 = (
    IPv6Network("2001::/23"),  # protocol assignments, Teredo's tunnels among them
    IPv6Network("2002::/16"),  # 6to4: tunnels to the IPv4 address inside
    IPv6Network("3fff::/20"),  # documentation (RFC 9637); older Pythons call it global
)
_NAT64 = IPv6Network("64:ff9b::/96")  # translated to the IPv4 address inside (RFC 6052)


def is_public(address: str) -> bool:
    """Whether this is a unicast address of the public internet, also through the tunnels, mappings and
    translations that hide an IPv4 address in an IPv6 one. False for what is no address at all."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv4Address):
        return _is_public_v4(parsed)
    return _is_public_v6(parsed)


def _is_public_v4(address: IPv4Address) -> bool:
    special = address.is_multicast or address.is_reserved or any(address in net for net in _REFUSED_V4)
    return address.is_global and not special


def _is_public_v6(address: IPv6Address) -> bool:
    if address in _NAT64:
        return _is_public_v4(IPv4Address(int(address) & 0xFFFFFFFF))
    refused = address.is_multicast or address.is_reserved or any(address in net for net in _REFUSED_V6)
    return address in _GLOBAL_V6 and address.is_global and not refused


def check_url(url: str | httpx.URL) -> httpx.URL:
    """Parse what may be fetched.

    Raises:
        UrlRefused: not absolute http or https, or made to be read differently by different readers.
    """
    text = str(url)
    if len(text) > MAX_URL_CHARS:
        raise UrlRefused(f"the URL is longer than {MAX_URL_CHARS} characters", field="url")
    if any(ord(char) <= 0x20 or ord(char) == 0x7F or char == "\\" for char in text):
        raise UrlRefused("the URL contains spaces, control characters or backslashes", field="url")
    try:
        parsed = httpx.URL(text)
        host = parsed.host
    except (httpx.InvalidURL, ValueError, UnicodeError) as error:
        raise UrlRefused("the URL is malformed", field="url") from error
    if parsed.scheme not in ("http", "https"):
        raise UrlRefused("only http and https URLs are fetched", field="url", choices=("http", "https"))
    if not host or "%" in host:
        raise UrlRefused("the URL names no host", field="url")
    if parsed.userinfo:
        raise UrlRefused("the URL carries a user name; those are not fetched", field="url")
    if parsed.port is not None and not 1 <= parsed.port <= 65535:
        raise UrlRefused("the URL has an impossible port", field="url")
    return parsed


async def check_destination(
    url: str, *, resolver: Resolver | None = None, allow_hosts: Collection[str] = ()
) -> None:
    """Refuse early what would be refused once it is connected to. A name that has no address for now passes.

    Args:
        resolver: None: the system's.
        allow_hosts: as `GuardedBackend` has them.

    Raises:
        UrlRefused
    """
    parsed = check_url(url)
    port = parsed.port or _PORTS[parsed.scheme]
    try:
        async with asyncio.timeout(_LOOK_UP_S):
            addresses = await (resolver or resolve)(parsed.host, port)
    except (OSError, UnicodeError, TimeoutError):
        return
    _check_addresses(parsed.host, port, addresses, allow_hosts)


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses the system knows for `host`, in its order of preference."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
    )
    return list(dict.fromkeys(str(row[4][0]) for row in found))


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections for httpcore, to public addresses only.

    Args:
        allow_hosts: exact `host` or `host:port` (`[v6]:port`) that may be anywhere.
    """

    def __init__(
        self,
        network: httpcore.AsyncNetworkBackend,
        *,
        resolver: Resolver = resolve,
        allow_hosts: Collection[str] = (),
    ) -> None:
        self._network = network
        self._resolver = resolver
        self._allow_hosts = tuple(allow_hosts)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raises: UrlRefused: the name has an address we do not go to; besides httpcore's own errors."""
        addresses = await self._addresses(host, port)
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        """Where the name leads now, at least one.

        Raises:
            UrlRefused: it has an address we do not go to.
            httpcore.ConnectError: it has none.
        """
        try:
            addresses = await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} has no address") from error
        if not addresses:
            raise httpcore.ConnectError(f"{host} has no address")
        _check_addresses(host, port, addresses, self._allow_hosts)
        return addresses

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise UrlRefused("local sockets are not fetched from", field="url")

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


def _check_addresses(host: str, port: int, addresses: Sequence[str], allow_hosts: Collection[str]) -> None:
    """One bad address is enough: a name that mixes them is made for guards that look at the first only."""
    name = host.lower()
    bracketed = f"[{name}]" if ":" in name else name
    allowed = {name, f"{bracketed}:{port}"} & {one.lower() for one in allow_hosts}
    if not allowed and not all(map(is_public, addresses)):
        raise UrlRefused(f"{host} is not on the public internet", field="url")
