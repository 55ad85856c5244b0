"""The seam to files elsewhere: a URL in, a file on disk out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Fetched:
    """content_type: as declared, not to be trusted. final_url_host: after redirects; paths and queries may
    carry secrets and are not handed on."""

    size_bytes: int
    content_type: str | None
    final_url_host: str


class Fetcher(Protocol):
    async def fetch(self, url: str, target: Path) -> Fetched:
        """Write what `url` leads to into `target`, which is gone again if this fails or is cancelled.

        Raises:
            UrlRefused: not a URL we fetch, or it leads where we don't go.
            UploadTooLarge: over the size limit; noticed while it arrives.
            UpstreamFailed: the server could not be reached, refused, or broke off.
            DeadlineExceeded: over the time limit, or silent for too long.
        """
        ...
