"""What the tables of people hold, as values. Times are Unix seconds; None where it has not happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class User:
    """email: in lower case. password_hash: None: they come by single sign-on, or not at all."""

    id: str
    tenant: str
    email: str
    name: str | None
    role: str
    password_hash: str | None = field(repr=False)
    verified_at: float | None
    disabled_at: float | None
    created_at: float
    last_login_at: float | None


@dataclass(frozen=True, slots=True)
class Session:
    """refresh_hash: of the token that is good now. refreshed_at: when that was given out."""

    id: str
    tenant: str
    user_id: str
    refresh_hash: str = field(repr=False)
    created_at: float
    refreshed_at: float
    expires_at: float
    revoked_at: float | None = None
    address: str | None = None
    agent: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a session is worth now: the tables of sessions, people and tenants in one row."""

    user_id: str
    tenant: str
    role: str
    tier: str
    expires_at: float
    ended: bool
    disabled: bool


class Purpose(StrEnum):
    """Of a one-time token."""

    VERIFY = "verify"
    RESET = "reset"
    INVITE = "invite"


@dataclass(frozen=True, slots=True)
class OneTimeToken:
    """data: what comes of it when it is used."""

    hash: str = field(repr=False)
    tenant: str
    purpose: Purpose
    user_id: str | None
    data: Mapping[str, Any] = field(repr=False)
    created_at: float
    expires_at: float
    used_at: float | None = None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """id: its `kid`. sealed: the private part. public: as a JWK. believed_until: None: it signs."""

    id: str
    algorithm: str
    sealed: bytes = field(repr=False)
    public: Mapping[str, Any]
    created_at: float
    believed_until: float | None = None
