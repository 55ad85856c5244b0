"""The keys that sign access tokens: in the database, sealed; a new one now and then, the ones before it
believed until what they signed has run out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from voiceforge.errors import Unavailable
from voiceforge.infra.credentials.jwt import ALGORITHM, PrivateKey, PublicKey
from voiceforge.infra.credentials.sealing import BrokenSeal, Seal
from voiceforge.infra.db import signing_keys as rows
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.records_people import SigningKey
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)

_FRESH_S = 0.1
"""So long are known keys good: with the moment for which a caller is believed it stays under a second. The
database is not asked more often, however many tokens name a key that nobody knows."""
_SLACK_S = 60.0


@dataclass(frozen=True, slots=True)
class KeyRules:
    """rotate_s: how long one signs. token_s: how long what it signs is good for."""

    rotate_s: float = 30 * 86_400.0
    token_s: float = 900.0


@dataclass(frozen=True, slots=True)
class _Known:
    at: float
    """Monotonic seconds, before the look-up."""
    newest: SigningKey | None
    public: Mapping[str, PublicKey] = field(repr=False)
    jwks: Sequence[Mapping[str, Any]] = ()


class SigningKeys:
    """Args:
    clock: Unix seconds.
    """

    def __init__(
        self,
        database: Database,
        seal: Seal,
        rules: KeyRules = KeyRules(),  # frozen
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._seal = seal
        self._rules = rules
        self._clock = clock
        self._known: _Known | None = None
        self._private: tuple[str, PrivateKey] | None = None

    async def signer(self) -> PrivateKey:
        """The one that signs now; made where there is none, or where it has signed for long enough.

        Raises:
            Unavailable: the database does not answer, or the keys are sealed under another secret.
        """
        newest = (await self._look_up()).newest
        if newest is None or newest.created_at + self._rules.rotate_s <= self._clock():
            return await self.rotate()
        if self._private is None or self._private[0] != newest.id:
            self._private = (newest.id, self._opened(newest))
        return self._private[1]

    async def rotate(self, *, distrust: bool = False) -> PrivateKey:
        """A new one signs from now on.

        Args:
            distrust: nothing that others signed is believed any more: everybody has to refresh.
        """
        now = self._clock()
        kid = new_id("sk", now)
        made = PrivateKey.new(kid)
        row = SigningKey(
            id=kid,
            algorithm=ALGORITHM,
            sealed=self._seal.close(made.pem(), kid),
            public=made.public(),
            created_at=now,
        )
        async with self._database.transaction() as connection:
            await rows.add(connection, row)
            await rows.retire(connection, kid, now if distrust else now + self._rules.token_s + _SLACK_S)
            await rows.forget_old(connection, now - 86_400.0)
        self._known = None
        self._private = (kid, made)
        _log.info("signing_key_made", kid=kid, distrust=distrust)
        return made

    async def public(self, kid: str) -> PublicKey | None:
        """None: nobody signs with that, or what it signed is not believed any more.

        Raises:
            Unavailable
        """
        return (await self._look_up()).public.get(kid)

    async def jwks(self) -> dict[str, Any]:
        """As RFC 7517 has them. Private parts are not among them.

        Raises:
            Unavailable
        """
        known = await self._look_up()
        if known.newest is None:
            await self.rotate()
            known = await self._look_up()
        return {"keys": [dict(one) for one in known.jwks]}

    async def _look_up(self) -> _Known:
        at = time.monotonic()
        known = self._known
        if known is not None and at - known.at < _FRESH_S:
            return known
        async with self._database.reading() as connection:
            found = await rows.believed(connection, self._clock())
        before = {} if known is None else known.public
        known = self._known = _Known(
            at,
            next((one for one in found if one.believed_until is None), None),
            {one.id: before.get(one.id) or PublicKey.of(one.public, one.id) for one in found},
            [one.public for one in found],
        )
        return known

    def _opened(self, key: SigningKey) -> PrivateKey:
        try:
            return PrivateKey.from_pem(self._seal.open(key.sealed, key.id), key.id)
        except BrokenSeal:
            raise Unavailable(
                "the keys that sign tokens are sealed under another secret than this server's"
            ) from None
