"""Access tokens: given to who has logged in, and who a token's bearer is at this moment.

A token says only whose session it is of; role, tenant and whether they may come in at all are looked up each
time. Whoever asks may believe an answer for a moment (see `authentication`), and no longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from voiceforge.errors import MalformedCredential, RevokedCredential
from voiceforge.infra.credentials.jwt import Claims, TokenRules, key_id
from voiceforge.infra.db import sessions
from voiceforge.infra.db.database import Database
from voiceforge.services.access import Caller, Role, scopes_of
from voiceforge.services.signing_keys import SigningKeys

_JSON = "eyJ"
"""How an object begins in base64; a token that does not is none of ours."""


class AccessTokens:
    """Args:
    life_s: of a token.
    clock: Unix seconds.
    """

    def __init__(
        self,
        database: Database,
        keys: SigningKeys,
        rules: TokenRules,
        *,
        life_s: float = 900.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._keys = keys
        self._rules = rules
        self.life_s = life_s
        self._clock = clock

    async def issue(self, user_id: str, session_id: str) -> str:
        """
        Raises:
            Unavailable
        """
        now = int(self._clock())
        claims = Claims(user_id, session_id, now, now, now + int(self.life_s))
        return (await self._keys.signer()).signed(claims, self._rules)

    async def caller(self, token: str) -> Caller | None:
        """Whoever this was given to; `until` is when it ends. None: it is nothing like a token of ours.

        Raises:
            MalformedCredential, ExpiredCredential, NotYetValid, WrongAudience
            RevokedCredential: the session has ended, or they may not come in any more.
            Unavailable
        """
        if not token.startswith(_JSON) or token.count(".") != 2:
            return None
        key = await self._keys.public(key_id(token))
        if key is None:
            raise MalformedCredential("nobody signs tokens with that key")
        claims = key.read(token, self._rules, self._clock())
        async with self._database.reading() as connection:
            standing = await sessions.standing(connection, claims.session_id)
        if standing is None or standing.ended or standing.user_id != claims.user_id:
            raise RevokedCredential("the session has ended")
        if standing.disabled:
            raise RevokedCredential("this account is disabled")
        role = Role(standing.role)
        return Caller(
            standing.tenant,
            role,
            scopes_of(role, standing.tenant),
            user_id=standing.user_id,
            tier=standing.tier,
            until=float(claims.expires_at),
        )
