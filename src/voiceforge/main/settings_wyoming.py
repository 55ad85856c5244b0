"""The settings of the Wyoming server."""

from __future__ import annotations

import ipaddress

from pydantic import Field, field_validator

from voiceforge.main.settings_values import NameTable, Networks, Section

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class WyomingSettings(Section):
    """The Wyoming protocol of voice assistants, beside HTTP. It knows no keys."""

    enabled: bool = Field(default=False, description="Have `voiceforge serve` speak it too.")
    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(
        default=10_300, ge=0, le=65_535, description="Port to listen on; 0 lets the system choose."
    )
    allow: Networks = Field(
        default=(),
        description="Addresses and networks whose clients are let in, such as `192.168.1.0/24`; empty: all "
        "that reach it.",
    )
    tenant: str = Field(
        default="default", min_length=1, max_length=64, description="Whose the commands of its clients are."
    )
    tenants: NameTable = Field(
        default={},
        examples=[{"192.168.2.0/24": "tn_0123"}],
        description="Likewise of clients from certain networks; the narrowest counts.",
    )
    insecure: bool = Field(
        default=False, description="Allow listening beyond this machine without `wyoming.allow`."
    )
    tls: bool = Field(
        default=False,
        description="Speak TLS, with the certificate and the rules of `server.tls_…`.",
    )
    announce: bool = Field(
        default=False, description="Tell the local network by mDNS that it is here; needs the extra `mdns`."
    )
    idle_s: float = Field(
        default=60.0, ge=1, le=86_400, description="A connection that brings nothing for so long is closed."
    )

    @property
    def networks(self) -> tuple[Network, ...]:
        return tuple(ipaddress.ip_network(name, strict=False) for name in self.allow)

    @property
    def tenants_by_network(self) -> tuple[tuple[Network, str], ...]:
        """The narrowest first."""
        pairs = [(ipaddress.ip_network(name, strict=False), tenant) for name, tenant in self.tenants.items()]
        return tuple(sorted(pairs, key=lambda pair: pair[0].prefixlen, reverse=True))

    @field_validator("tenants")
    @classmethod
    def _are_networks(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            ipaddress.ip_network(name, strict=False)
        return value
