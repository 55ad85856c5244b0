"""Tokens for one thing, once: made here, kept as keyed hashes, told to nobody but whom they are for."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from voiceforge.errors import InvalidRequest
from voiceforge.infra.db import one_time_tokens as rows
from voiceforge.infra.db.records_people import OneTimeToken, Purpose

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_PREFIX = "vft_"
_TOKEN = re.compile(r"vft_[A-Za-z0-9_-]{43}")

LIFE_S: Mapping[Purpose, float] = {
    Purpose.VERIFY: 86_400.0,
    Purpose.RESET: 3_600.0,
    Purpose.INVITE: 7 * 86_400.0,
}


class OneTime:
    """Args:
    secret: that the hashes are keyed with.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    async def make(
        self,
        connection: AsyncConnection,
        purpose: Purpose,
        tenant: str,
        now: float,
        *,
        user_id: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> str:
        """A new token. Those that the person had for the same are good for nothing any more."""
        # Also where there is nobody: whoever asked shall not learn that from the time it takes.
        await rows.void(connection, user_id or "", purpose)
        token = _PREFIX + secrets.token_urlsafe(32)
        made = OneTimeToken(
            hash=self._hash(token),
            tenant=tenant,
            purpose=purpose,
            user_id=user_id,
            data=data or {},
            created_at=now,
            expires_at=now + LIFE_S[purpose],
        )
        await rows.add(connection, made)
        return token

    async def use(
        self, connection: AsyncConnection, token: str, purpose: Purpose, now: float
    ) -> OneTimeToken:
        """
        Raises:
            InvalidRequest: it is good for nothing, or not any more.
        """
        found = None
        if _TOKEN.fullmatch(token):
            found = await rows.use(connection, self._hash(token), purpose, now)
        if found is None:
            raise InvalidRequest("this token is good for nothing, or not any more", field="token")
        return found

    def _hash(self, token: str) -> str:
        return hmac.new(self._secret, token.encode(), hashlib.sha256).hexdigest()
