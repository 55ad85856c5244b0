"""Settings of who may call, and of what keeps their secrets."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from voiceforge.infra.webhooks.signing import key_of
from voiceforge.main.settings_values import Names, NameTable, Section, http_address
from voiceforge.services.key_text import is_whole


class OidcSettings(Section):
    """Single sign-on with a provider of OpenID Connect."""

    issuer: str | None = Field(
        default=None,
        examples=["https://login.example.org/realms/main"],
        description="The provider; what it can do is read from `/.well-known/openid-configuration` under it. "
        "Unset: there is no single sign-on.",
    )
    client_id: str | None = Field(default=None, examples=["voiceforge"], description="Who we are to it.")
    client_secret: SecretStr | None = Field(
        default=None, examples=["what-the-provider-gave"], description="Unset: we are a public client."
    )
    redirect_url: str | None = Field(
        default=None,
        examples=["https://speech.example.org/v1/auth/oidc/callback"],
        description="Where the provider sends people back to, as it knows it.",
    )
    scopes: Names = Field(default=("openid", "email", "profile"), description="What is asked of it.")
    tenant: str = Field(default="default", description="Where people come in whom no rule puts elsewhere.")
    tenant_claim: str | None = Field(
        default=None, examples=["organisation"], description="The claim that `tenants` looks at."
    )
    tenants: NameTable = Field(
        default={}, examples=[{"acme": "tn_0123"}], description="Which value of it is which tenant."
    )
    role: Literal["admin", "member", "viewer"] = Field(
        default="member", description="Of people whom no rule gives another."
    )
    role_claim: str | None = Field(
        default=None, examples=["groups"], description="The claim that `roles` looks at; it may be a list."
    )
    roles: NameTable = Field(
        default={}, examples=[{"speech-admins": "admin"}], description="Which value of it is which role."
    )
    create: bool = Field(
        default=True,
        description="People whom we do not know get an account; false: only those with an address that has "
        "one come in.",
    )

    @field_validator("issuer", "redirect_url")
    @classmethod
    def _are_addresses(cls, value: str | None) -> str | None:
        return None if value is None else http_address(value)

    @field_validator("roles")
    @classmethod
    def _are_roles(cls, value: dict[str, str]) -> dict[str, str]:
        for role in value.values():
            if role not in ("admin", "member", "viewer"):
                raise ValueError(f"no role that a provider can give: {role} (admin, member, viewer)")
        return value


class AuthSettings(Section):
    """People and keys."""

    required: bool = Field(
        default=False,
        description="Whoever calls must be known, by `api_key` or by a key or a person in the database.",
    )
    first_key: SecretStr | None = Field(
        default=None,
        examples=["vf_Examples_NotASecretOnlyAnExampleOfAKey1231ArRF5"],
        description="A key of an owner of the default tenant that the server adds to its database at start, "
        "where it is not there; `voiceforge keys generate` makes one. For containers; elsewhere use "
        "`voiceforge init`.",
    )
    failures_per_minute: int = Field(
        default=30,
        ge=0,
        description="So often an address may come with wrong credentials before each process of the server "
        "asks it to wait; 0: without end.",
    )
    secret: SecretStr | None = Field(
        default=None,
        min_length=32,
        examples=["at-least-32-characters-that-nobody-can-guess"],
        description="What keys are hashed and tokens are sealed with; the same on every machine that shares "
        "a database. Unset: a file in `data_dir`, made at the first start.",
    )
    registration: Literal["closed", "invitation", "open"] = Field(
        default="invitation",
        description="Who gets an account over HTTP: nobody, who is invited, or everybody whose address "
        "confirms it.",
    )
    issuer: str = Field(default="voiceforge", min_length=1, description="`iss` of the tokens of people.")
    audience: str = Field(
        default="voiceforge", min_length=1, description="`aud` of them; tokens for another are refused."
    )
    access_token_s: float = Field(
        default=900.0, ge=60, le=86_400, description="How long an access token is good for."
    )
    session_s: float = Field(
        default=30 * 86_400.0, ge=300, description="People log in again after so long at the latest."
    )
    signing_key_s: float = Field(
        default=30 * 86_400.0,
        ge=3600,
        description="How long one key signs tokens, until another takes its place.",
    )
    letter_url: SecretStr | None = Field(
        default=None,
        examples=["https://mail.example.org/hooks/voiceforge"],
        description="Letters to people (confirm, reset, invite) are posted there as JSON.",
    )
    letter_secret: SecretStr | None = Field(
        default=None,
        examples=["whsec_bm90LWEtc2VjcmV0LWJ1dC1hbi1leGFtcGxlLW9mLW9uZQ=="],
        description="Signs them, as webhooks are signed.",
    )
    letter_command: Names = Field(
        default=(),
        examples=[["/usr/local/bin/send-letter", "--from=speech@example.org"]],
        description="Or they go to this command, as JSON on its standard input.",
    )

    @field_validator("letter_url")
    @classmethod
    def _is_address(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(http_address(value.get_secret_value()))

    @field_validator("letter_secret")
    @classmethod
    def _is_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            key_of(value.get_secret_value())
        return value

    @field_validator("first_key")
    @classmethod
    def _is_a_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not is_whole(value.get_secret_value()):
            raise ValueError("should be a key as `voiceforge keys generate` makes them")
        return value
