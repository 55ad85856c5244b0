"""Short-lived tokens, for browsers and others that shall hold no key.

    <prefix><payload>.<signature>

    payload: {"e": expiry, "n": nonce, "p": [kind, whose], "s": scopes, "a": audience, "d": data}

None is stored: every process of the installation knows the secret they are signed under. A token names what
it was made with, and ends with that. Whoever holds it can read it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
import time
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from voiceforge.errors import ExpiredCredential, InvalidRequest, MalformedCredential, Unauthenticated
from voiceforge.services.access import Caller, Scope

ANY_DOOR = "vft_"
REALTIME = "ek_"
"""OpenAI's client secrets: for realtime sessions only."""
PREFIXES = (ANY_DOOR, REALTIME)
LENDABLE = frozenset({Scope.TRANSCRIBE, Scope.READ, Scope.WRITE})
"""With the others, something could be made that lasts longer than the token."""
_MOST_CHARS = 8 * 1024
"""It travels in a header, beside others."""
_MOST_PAYLOAD_BYTES = 64 * 1024
_NOTHING: Mapping[str, Any] = {}


class ParentKind(StrEnum):
    KEY = "key"
    USER = "user"
    OWNER = "owner"
    """Whoever came with the key of the configuration, or without where none is needed."""


@dataclass(frozen=True, slots=True)
class NewToken:
    """expires_at: Unix seconds."""

    value: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class ShortToken:
    """What a token says. parent: what it was made with, and ends with."""

    kind: ParentKind
    parent: str
    scopes: frozenset[Scope]
    expires_at: int
    data: Mapping[str, Any]


class ShortTokens:
    """Args:
    secret: signs; the same in every process.
    configured_key: the one of the configuration; what was made with it ends when it changes.
    clock: Unix seconds.
    """

    def __init__(
        self, secret: bytes, configured_key: str | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._secret = secret
        self._clock = clock
        self.owner = _text(hmac.digest(secret, b"owner " + (configured_key or "").encode(), "sha256"))[:16]
        """How tokens call whoever came with the configured key, as long as it is that."""

    def make(
        self,
        caller: Caller,
        valid_s: float,
        *,
        scopes: Collection[Scope] = (Scope.TRANSCRIBE,),
        prefix: str = ANY_DOOR,
        data: Mapping[str, Any] = _NOTHING,
    ) -> NewToken:
        """For at most `valid_s`, and never longer than the caller may stay.

        Raises:
            PermissionDenied: the caller has one of the scopes not.
            InvalidRequest: a scope that is not lent; or `data` is too long to travel in a header.
        """
        for scope in scopes:
            if scope not in LENDABLE:
                raise InvalidRequest(
                    f"a token cannot have the scope {scope}", field="scopes", choices=sorted(LENDABLE)
                )
            caller.needs(scope)
        expires_at = int(min(self._clock() + valid_s, caller.until or float("inf")))
        document = {
            "e": expires_at,
            "n": secrets.token_urlsafe(9),
            "p": self._parent(caller),
            "s": sorted(scopes),
            "a": prefix,
            "d": dict(data),
        }
        payload = _text(zlib.compress(json.dumps(document, separators=(",", ":")).encode(), 9))
        value = f"{prefix}{payload}.{self._signature(payload)}"
        if len(value) > _MOST_CHARS:
            raise InvalidRequest(
                "the session is too long for a client secret; send prompt and keywords in session.update",
                field="session",
            )
        return NewToken(value, expires_at)

    def opened(self, value: str) -> ShortToken:
        """
        Raises:
            MalformedCredential: it is none of ours.
            ExpiredCredential
        """
        prefix = next((name for name in PREFIXES if value.startswith(name)), None)
        if prefix is None or len(value) > _MOST_CHARS:
            raise MalformedCredential("the token is malformed")
        payload, _, signature = value.removeprefix(prefix).partition(".")
        if not hmac.compare_digest(self._signature(payload).encode(), signature.encode("utf-8", "replace")):
            raise MalformedCredential("the token is malformed, or not from this server")
        try:
            unpacked = zlib.decompressobj().decompress(_bytes(payload), _MOST_PAYLOAD_BYTES)
            document = json.loads(unpacked)
        except (binascii.Error, zlib.error, ValueError):
            raise MalformedCredential("the token is malformed") from None
        if document["a"] != prefix:
            raise MalformedCredential("the token is malformed")
        if document["e"] <= self._clock():
            raise ExpiredCredential("the token has expired")
        kind, parent = document["p"]
        scopes = frozenset(Scope(name) for name in document["s"])
        return ShortToken(ParentKind(kind), parent, scopes, document["e"], document["d"])

    def realtime_session(self, value: str) -> Mapping[str, Any] | None:
        """What a client secret was made for. None: it is none, or not any more."""
        if not value.startswith(REALTIME):
            return None
        try:
            return self.opened(value).data
        except Unauthenticated:
            return None

    def _parent(self, caller: Caller) -> list[str]:
        if caller.key_id is not None:
            return [ParentKind.KEY, caller.key_id]
        if caller.user_id is not None:
            return [ParentKind.USER, caller.user_id]
        return [ParentKind.OWNER, self.owner]

    def _signature(self, payload: str) -> str:
        return _text(hmac.digest(self._secret, payload.encode("utf-8", "replace"), "sha256"))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
