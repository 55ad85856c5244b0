"""What is asked and told about API keys and short-lived tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from voiceforge.services.access import Role, Scope
from voiceforge.services.keys import OVERLAP_S

KeyState = Literal["active", "expired", "revoked"]
ModelNames = Annotated[list[Annotated[str, Field(min_length=1, max_length=255)]], Field(max_length=100)]
Addresses = Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=100)]


class NewKeyIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=200, description="For people.")
    role: Role | None = Field(
        None,
        description="Absent: yours. A key of the role `service` is the organisation's, any other is yours.",
    )
    scopes: list[Scope] | None = Field(
        None, max_length=len(Scope), description="What it may do; absent: all that you and its role may."
    )
    models: ModelNames | None = Field(None, description="The only ones it may use; absent: all that you may.")
    addresses: Addresses | None = Field(
        None, description="Addresses and networks it may be used from; absent: all."
    )
    tier: str | None = Field(
        None, max_length=40, description="Whose limits it has; for those who run the server."
    )
    expires_at: datetime | None = Field(None, description="Absent: it does not expire.")


class RotateKeyIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    overlap_s: float = Field(
        default=OVERLAP_S,
        ge=0,
        le=90 * 86_400,
        description="For so long the old key is good too; 0: from now on only the new one is.",
    )


class KeyOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    name: str
    hint: str = Field(description="Its first characters.")
    status: KeyState
    role: Role
    user_id: str | None = Field(description="Whose it is; null: the organisation's.")
    scopes: list[Scope]
    models: list[str] | None = Field(description="Null: all.")
    addresses: list[str] | None = Field(description="Null: all.")
    tier: str | None = Field(description="Null: that of the organisation.")
    created_at: str
    expires_at: str | None
    last_used_at: str | None = Field(description="To the minute.")
    revoked_at: str | None
    replaced_by: str | None = Field(description="The key that took its place.")


class NewKeyOut(KeyOut):
    key: str = Field(description="The key itself; it is not told again.")


class KeyPageOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    data: list[KeyOut] = Field(description="The newest first, also those that are over.")
    next_cursor: str | None = Field(description="Of the next page; null: this is the last.")


LentScope = Literal["transcribe", "transcriptions:read", "transcriptions:write"]
_TO_TRANSCRIBE: list[LentScope] = ["transcribe"]


class NewTokenIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    expires_in_s: int = Field(default=300, ge=1, le=3600, description="For so long it is good.")
    scopes: list[LentScope] = Field(
        default=_TO_TRANSCRIBE, min_length=1, max_length=3, description="Out of your own."
    )


class NewTokenOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    token: str = Field(
        description="`vft_…`: good for requests and sockets as an API key is, and as `?token=` in an address."
    )
    expires_at: str
    scopes: list[LentScope]
