"""Wires what is about people; what it needs beside the server itself is the extra `accounts`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from voiceforge.errors import DependencyMissing
from voiceforge.main.server_secret import server_secret

if TYPE_CHECKING:
    from voiceforge.infra.db.database import Database
    from voiceforge.infra.letters.base import Letters
    from voiceforge.main.settings import Settings
    from voiceforge.services.attempts import Attempts
    from voiceforge.services.limits import Limits
    from voiceforge.services.passwords import Hashes
    from voiceforge.services.people import People
    from voiceforge.services.sign_ins import SignIns
    from voiceforge.services.single_sign_on import SingleSignOn

_PACKAGES = frozenset({"argon2", "authlib", "bcrypt", "cryptography", "joserfc"})
_LACKING = "accounts need packages that are not installed. Run: pip install 'voiceforge[accounts]'"


def build_people(
    settings: Settings,
    database: Database,
    *,
    limits: Limits | None = None,
    hashes: Callable[[], Hashes] | None = None,
    on_refused: Callable[[str | None, str], None] = lambda address, code: None,
    clock: Callable[[], float] = time.time,
) -> People:
    """Nothing is opened yet.

    Args:
        limits: whose limiter counts attempts to log in, and whose tiers there are; None: this process counts
            alone, and tiers are whatever is said.
        hashes: None: those that are meant for real passwords.
        on_refused: told the address and the code of who was not let in.

    Raises:
        DependencyMissing, ConfigurationError
    """
    try:
        from voiceforge.infra.credentials.jwt import TokenRules
        from voiceforge.infra.credentials.password_hashes import PasswordHashes
        from voiceforge.infra.credentials.sealing import Seal
        from voiceforge.infra.limiter.memory import MemoryLimiter
        from voiceforge.services.access_tokens import AccessTokens
        from voiceforge.services.accounts import Accounts, Registration
        from voiceforge.services.attempts import Attempts
        from voiceforge.services.letter_desk import LetterDesk
        from voiceforge.services.members import Members
        from voiceforge.services.one_time import OneTime
        from voiceforge.services.passwords import Passwords
        from voiceforge.services.people import People
        from voiceforge.services.sign_ins import SignIns
        from voiceforge.services.signing_keys import KeyRules, SigningKeys
        from voiceforge.services.tenants import Tenants
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _PACKAGES:
            raise
        raise DependencyMissing(_LACKING) from None
    wish, secret = settings.auth, server_secret(settings)
    keys = SigningKeys(
        database,
        Seal(secret.derived("signing keys")),
        KeyRules(wish.signing_key_s, wish.access_token_s),
        clock=clock,
    )
    tokens = AccessTokens(
        database,
        keys,
        TokenRules(wish.issuer, wish.audience),
        life_s=wish.access_token_s,
        clock=clock,
    )
    sign_ins = SignIns(database, tokens, secret.derived("refresh tokens"), life_s=wish.session_s, clock=clock)
    passwords = Passwords(hashes or PasswordHashes)
    letters, one_time = LetterDesk(_letters(settings)), OneTime(secret.derived("one-time tokens"))
    attempts = Attempts(MemoryLimiter() if limits is None else limits.limiter)
    accounts = Accounts(
        database=database,
        sign_ins=sign_ins,
        passwords=passwords,
        one_time=one_time,
        letters=letters,
        attempts=attempts,
        registration=Registration(wish.registration),
        on_refused=on_refused,
        clock=clock,
    )
    members = Members(database=database, passwords=passwords, one_time=one_time, letters=letters, clock=clock)
    return People(
        accounts=accounts,
        members=members,
        tenants=Tenants(database, members, tiers=None if limits is None else limits.tiers.names, clock=clock),
        single_sign_on=_single_sign_on(settings, database, sign_ins, attempts, clock),
        sign_ins=sign_ins,
        tokens=tokens,
        keys=keys,
        letters=letters,
        passwords=passwords,
    )


def people_if_possible(
    settings: Settings,
    database: Database,
    limits: Limits | None,
    on_refused: Callable[[str | None, str], None],
) -> People | None:
    """None: the packages for accounts are not installed.

    Raises:
        ConfigurationError
    """
    try:
        return build_people(settings, database, limits=limits, on_refused=on_refused)
    except DependencyMissing:
        return None


def or_told(people: People | None) -> Callable[[], People]:
    """What gives them, and says what to install where there are none."""

    def give() -> People:
        if people is None:
            raise DependencyMissing(_LACKING)
        return people

    return give


def _single_sign_on(
    settings: Settings,
    database: Database,
    sign_ins: SignIns,
    attempts: Attempts,
    clock: Callable[[], float],
) -> SingleSignOn | None:
    wish = settings.oidc
    if wish.issuer is None or wish.client_id is None or wish.redirect_url is None:
        return None
    from voiceforge.infra.credentials.sealing import Seal
    from voiceforge.infra.sso.oidc import OidcClient, OidcProvider
    from voiceforge.services.access import Role
    from voiceforge.services.single_sign_on import ClaimRules, SingleSignOn

    secret = None if wish.client_secret is None else wish.client_secret.get_secret_value()
    client = OidcClient(wish.issuer, wish.client_id, secret, wish.redirect_url, wish.scopes)
    rules = ClaimRules(
        tenant=wish.tenant,
        role=Role(wish.role),
        tenant_claim=wish.tenant_claim,
        tenants=wish.tenants,
        role_claim=wish.role_claim,
        roles={value: Role(role) for value, role in wish.roles.items()},
        create=wish.create,
    )
    return SingleSignOn(
        database=database,
        sign_ins=sign_ins,
        attempts=attempts,
        provider=OidcProvider(client, clock=clock),
        issuer=wish.issuer,
        rules=rules,
        seal=Seal(server_secret(settings).derived("single sign-on")),
        secure=wish.redirect_url.startswith("https:"),
        clock=clock,
    )


def _letters(settings: Settings) -> Letters | None:
    wish = settings.auth
    if wish.letter_url is not None:
        from voiceforge.infra.letters.http import LetterUrl
        from voiceforge.infra.webhooks.http import HttpWebhookSender

        url, secret = wish.letter_url.get_secret_value(), wish.letter_secret
        # Who runs the server named it: it may be anywhere.
        sender = HttpWebhookSender(allow_hosts=[urlsplit(url).hostname or ""])
        return LetterUrl(sender, url, () if secret is None else (secret.get_secret_value(),))
    if wish.letter_command:
        from voiceforge.infra.letters.command import LetterCommand

        return LetterCommand(wish.letter_command)
    return None
