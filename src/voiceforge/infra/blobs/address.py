"""Where an object store is and how it wants to be spoken to; as data, so that settings can be checked without
its library."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from voiceforge.infra.blobs.base import check_prefix

Scheme = Literal["s3", "gs", "az"]
Encryption = Literal["AES256", "aws:kms"]

_SCHEMES: dict[str, Scheme] = {"s3": "s3", "gs": "gs", "az": "az"}
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_MAX_PREFIX_CHARS = 256


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """bucket: Azure calls it a container. prefix: before every key, no slashes around it; may be empty."""

    scheme: Scheme
    bucket: str
    prefix: str


def parse_store_url(text: str) -> StoreUrl:
    """From `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.

    Raises:
        ValueError: it is none of these; the message does not repeat it.
    """
    parts = urlsplit(text)
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None:
        raise ValueError("should be an s3://, gs:// or az:// address")
    if _BUCKET.fullmatch(parts.netloc) is None or parts.query or parts.fragment:
        raise ValueError(
            f"should be {scheme}://, the name of a bucket and perhaps a prefix, and nothing else"
        )
    try:
        prefix = check_prefix(parts.path.removeprefix("/"))
    except ValueError:
        prefix = None
    if prefix is None or len(prefix) > _MAX_PREFIX_CHARS:
        raise ValueError(
            "has a prefix with more than letters, digits, `.`, `_`, `-` and slashes, or a long one"
        )
    return StoreUrl(scheme, parts.netloc, prefix)


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """How to reach and use an object store.

    Args:
        endpoint: its address where it is not the provider's own.
        access_key_id: Azure: the name of the account. None: as the environment of the process says.
        secret_access_key: Azure: the key of the account.
        path_style: S3: the bucket's name stands in the path of addresses, not in the host name.
        encryption: S3: what the store is asked to encrypt with; None: as the bucket says.
        timeout_s: the longest time the store may say nothing.
    """

    url: StoreUrl
    endpoint: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    path_style: bool = True
    allow_http: bool = False
    encryption: Encryption | None = None
    kms_key_id: str | None = None
    timeout_s: float = 30.0
