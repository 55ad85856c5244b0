"""What is asked and told about people."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Email = Annotated[str, Field(max_length=254, description="An e-mail address.")]
Password = Annotated[str, Field(max_length=4096, json_schema_extra={"format": "password"})]
Name = Annotated[str, Field(max_length=200)]
OneTimeText = Annotated[str, Field(max_length=200, description="From a letter, or from who invited you.")]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class RegisterIn(_In):
    """With an invitation, or for a tenant of your own."""

    password: Password
    email: Email | None = Field(None, description="Absent with an invitation: that says which.")
    name: Name | None = None
    organisation: Name | None = Field(None, description="The name of the new tenant.")
    invitation: OneTimeText | None = None


class TokenIn(_In):
    token: OneTimeText


class LoginIn(_In):
    email: Email
    password: Password


class RefreshIn(_In):
    refresh_token: str = Field(max_length=200)


class ChangePasswordIn(_In):
    current_password: Password
    new_password: Password


class ForgotIn(_In):
    email: Email


class ResetIn(_In):
    token: OneTimeText
    password: Password


class _Out(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TokensOut(_Out):
    access_token: str = Field(description="Send it as `Authorization: Bearer`.")
    token_type: str = "Bearer"  # noqa: S105
    expires_in: int = Field(description="Seconds that the access token is good for.")
    refresh_token: str = Field(description="Good once, for the next two tokens.")


class AcceptedOut(_Out):
    status: str = Field(description="`accepted`: look into your letters, whether you have an account or not.")


class UserOut(_Out):
    id: str
    email: str
    name: str | None
    role: str
    disabled: bool
    created_at: str
    last_login_at: str | None


class MyTenantOut(_Out):
    id: str
    name: str
    tier: str


class MeOut(_Out):
    """Who you are to this server."""

    user: UserOut | None = Field(description="Null: you are a key, or whoever owns this machine.")
    tenant: MyTenantOut
    role: str
    scopes: list[str]
    key_id: str | None


class EndedOut(_Out):
    sessions_ended: int


class KeySetOut(_Out):
    keys: list[dict[str, str]]
