"""Whom an address stands for, where something is counted by address."""

from __future__ import annotations

import ipaddress

_V6_PREFIX = 64
"""What one household or machine has of IPv6."""


def household(address: str | None) -> str:
    """The address, or of IPv6 the network of 64 bits that it is in; as it is where it is no address."""
    if address is None or ":" not in address:
        return address or ""
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, _V6_PREFIX), strict=False))
