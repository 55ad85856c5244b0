"""Client secrets (`ek_…`): keys a browser may hold, for an hour at most two, with the session they open.

    ek_<payload>.<signature>      payload: {"e": expiry, "n": nonce, "s": session}

Signed under the server's API key, so every process that has the key takes the secrets of all others, and
none is stored. The payload can be read by whoever holds it; it is what its maker asked for.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from voiceforge.errors import InvalidRequest

PREFIX = "ek_"
# It travels in a header, beside others.
_MOST_CHARS = 8 * 1024
_MOST_PAYLOAD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ClientSecret:
    value: str
    expires_at: int


class ClientSecrets:
    """
    Args:
        api_key: of the server; None where it has none: every secret is then as good as another.
        now_s: Unix time.
    """

    def __init__(self, api_key: str | None, now_s: Callable[[], float]) -> None:
        self._key = hashlib.sha256(b"voiceforge client secrets\0" + (api_key or "").encode()).digest()
        self._now_s = now_s

    def make(self, session: Mapping[str, Any], valid_s: int) -> ClientSecret:
        """
        Args:
            session: JSON; `opened` gives it back.

        Raises:
            InvalidRequest: it is too long to travel in a header.
        """
        expires_at = int(self._now_s()) + valid_s
        document = {"e": expires_at, "n": secrets.token_urlsafe(9), "s": session}
        payload = _text(zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 9))
        value = f"{PREFIX}{payload}.{self._signature(payload)}"
        if len(value) > _MOST_CHARS:
            raise InvalidRequest(
                "the session is too long for a client secret; send prompt and keywords in session.update",
                field="session",
            )
        return ClientSecret(value, expires_at)

    def opened(self, value: str) -> Mapping[str, Any] | None:
        """The session a secret was made for; None where it is not ours, or not valid any more."""
        if not value.startswith(PREFIX) or len(value) > _MOST_CHARS:
            return None
        payload, _, signature = value.removeprefix(PREFIX).partition(".")
        if not hmac.compare_digest(self._signature(payload).encode(), signature.encode("utf-8", "replace")):
            return None
        try:
            unpacked = zlib.decompressobj().decompress(_bytes(payload), _MOST_PAYLOAD_BYTES)
            document = json.loads(unpacked)
        except (binascii.Error, zlib.error, ValueError):
            return None
        if document["e"] <= self._now_s():
            return None
        session: Mapping[str, Any] = document["s"]
        return session

    def _signature(self, payload: str) -> str:
        return _text(hmac.digest(self._key, payload.encode("utf-8", "replace"), "sha256"))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
