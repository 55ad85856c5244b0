"""What goes wrong on the way to another server, as our errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpcore

from voiceforge.errors import DeadlineExceeded, UpstreamFailed


@contextmanager
def failures_told(host: str) -> Iterator[None]:
    """
    Raises:
        DeadlineExceeded, UpstreamFailed: in place of httpcore's errors.
    """
    try:
        yield
    except httpcore.TimeoutException as error:
        raise DeadlineExceeded(f"{host} kept silent for too long", field="url") from error
    except httpcore.ConnectError as error:
        raise UpstreamFailed(f"{host} could not be reached", field="url") from error
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
        raise UpstreamFailed(f"{host} broke off ({type(error).__name__})", field="url") from error
