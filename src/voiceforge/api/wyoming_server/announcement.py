"""Tells the local network by mDNS (RFC 6762, 6763) that a Wyoming server is here.

Home Assistant then offers it by itself.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

from voiceforge.errors import DependencyMissing
from voiceforge.telemetry.logger import Logger

if TYPE_CHECKING:
    from zeroconf.asyncio import AsyncZeroconf

SERVICE_TYPE = "_wyoming._tcp.local."

_log = Logger(__name__)


class Announcement:
    """Of one server. Belongs to the event loop that starts it.

    Args:
        address: what the server listens on, as a number; a wildcard is announced on every interface.

    Raises:
        DependencyMissing: zeroconf is not installed.
    """

    def __init__(self, address: str, port: int) -> None:
        try:
            import zeroconf.asyncio
        except ImportError:
            raise DependencyMissing(
                "wyoming.announce needs zeroconf. Run: pip install 'voiceforge[mdns]'"
            ) from None
        self._zeroconf = zeroconf
        self._addresses = _reachable(address)
        self._port = port
        self._voice: AsyncZeroconf | None = None

    async def start(self) -> None:
        """A network that takes no announcement is noted in the log; the server works without."""
        name = socket.gethostname().partition(".")[0]
        info = self._zeroconf.ServiceInfo(
            SERVICE_TYPE,
            f"VoiceForge on {name} {self._port}.{SERVICE_TYPE}",
            port=self._port,
            parsed_addresses=self._addresses,
            server=f"{name}.local.",
        )
        try:
            self._voice = self._zeroconf.asyncio.AsyncZeroconf(interfaces=self._addresses)
            # Every process of the server says the same.
            await self._voice.async_register_service(info, cooperating_responders=True)
        except (OSError, self._zeroconf.Error) as error:
            _log.warning("wyoming_not_announced", problem=type(error).__name__)
            await self.stop()

    async def stop(self) -> None:
        """Takes it back."""
        voice, self._voice = self._voice, None
        if voice is not None:
            await voice.async_unregister_all_services()
            await voice.async_close()


def _reachable(address: str) -> list[str]:
    """The addresses that others on the network can use."""
    if not ipaddress.ip_address(address).is_unspecified:
        return [address]
    import ifaddr

    own = (ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips)
    return [ip for ip in own if isinstance(ip, str) and not ipaddress.ip_address(ip).is_loopback]
