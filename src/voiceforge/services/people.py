"""Everything about people, as the surfaces get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from voiceforge.services.access_tokens import AccessTokens
from voiceforge.services.accounts import Accounts
from voiceforge.services.letter_desk import LetterDesk
from voiceforge.services.members import Members
from voiceforge.services.passwords import Passwords
from voiceforge.services.sign_ins import SignIns
from voiceforge.services.signing_keys import SigningKeys
from voiceforge.services.tenants import Tenants

if TYPE_CHECKING:
    from voiceforge.services.single_sign_on import SingleSignOn


@dataclass(frozen=True, slots=True)
class People:
    """single_sign_on: None where no provider is configured."""

    accounts: Accounts
    members: Members
    sign_ins: SignIns
    tokens: AccessTokens
    keys: SigningKeys
    tenants: Tenants
    single_sign_on: SingleSignOn | None
    letters: LetterDesk
    passwords: Passwords

    async def close(self) -> None:
        await self.letters.close()
        self.passwords.close()
