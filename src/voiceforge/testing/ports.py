"""Ports for servers of tests that are told theirs, or come back on the same one."""

from __future__ import annotations

import random
import socket

_OWN = range(20_000, 32_000)
"""Below those that Linux gives to outgoing connections, one of which could take it before the server does, or
between its end and its return."""


def free_port() -> int:
    """One of 127.0.0.1 that nobody listens on."""
    while True:
        port = random.choice(_OWN)  # noqa: S311
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
