"""What admins ask and are told about the people of their tenant, and about tenants."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from voiceforge.api.native.account_schemas import Email, Name, UserOut

RoleName = Literal["owner", "admin", "member", "viewer", "service"]
TierName = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9_-]+$")]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewUserIn(_In):
    """A person is invited; a program (`service`) is there at once, and gets keys."""

    email: Email
    role: RoleName = "member"
    name: Name | None = Field(None, description="Of a program; people say theirs themselves.")


class UserChangeIn(_In):
    """What is absent stays as it is."""

    role: RoleName | None = None
    disabled: bool | None = None


class NewTenantIn(_In):
    """With an invitation for its first owner."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    tier: TierName = "free"
    owner_email: Email | None = None


class TenantChangeIn(_In):
    """What is absent stays as it is."""

    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    tier: TierName | None = None
    disabled: bool | None = None


class _Out(BaseModel):
    model_config = ConfigDict(extra="forbid")


class UserPageOut(_Out):
    data: list[UserOut] = Field(description="The newest first.")
    next_cursor: str | None = Field(description="Of the next page; null: this is the last.")


class HandedOutOut(_Out):
    """Something that is good once, for one thing."""

    email: str
    token: str | None = Field(description="For you to hand on; null: a letter brings it.")
    expires_at: str


class InvitationOut(_Out):
    email: str
    role: RoleName
    created_at: str
    expires_at: str


class InvitationsOut(_Out):
    data: list[InvitationOut] = Field(description="Those that nobody has answered, the newest first.")


class TenantOut(_Out):
    id: str
    name: str
    tier: str
    disabled: bool
    created_at: str


class NewTenantOut(TenantOut):
    invitation: HandedOutOut | None = Field(description="For its owner, where one was named.")


class TenantPageOut(_Out):
    data: list[TenantOut]
    next_cursor: str | None = Field(description="Of the next page; null: this is the last.")
