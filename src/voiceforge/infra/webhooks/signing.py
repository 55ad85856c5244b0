"""Signatures as Standard Webhooks has them (https://www.standardwebhooks.com): HMAC-SHA256 over id, time and
body, by secrets that are written `whsec_` and base64."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable

PREFIX = "whsec_"
_KEY_BYTES = 32
_LEAST_BYTES, _MOST_BYTES = 24, 64


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode("ascii")


def key_of(secret: str) -> bytes:
    """
    Raises:
        ValueError: not `whsec_` and the base64 of 24 to 64 bytes.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except ValueError:  # binascii.Error among them
        key = b""
    if not secret.startswith(PREFIX) or not _LEAST_BYTES <= len(key) <= _MOST_BYTES:
        raise ValueError(f"should be {PREFIX} and the base64 of {_LEAST_BYTES} to {_MOST_BYTES} bytes")
    return key


def signed_headers(event_id: str, timestamp: int, body: bytes, signers: Iterable[str]) -> dict[str, str]:
    """The three headers by which a receiver knows us; one signature by each secret.

    Args:
        timestamp: of this attempt, whole Unix seconds.

    Raises:
        ValueError: one of the signers is no secret.
    """
    signed = f"{event_id}.{timestamp}.".encode() + body
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(_signature(key_of(secret), signed) for secret in signers),
    }


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode("ascii")
