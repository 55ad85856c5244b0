"""Who asks, and what they may do.

Every method of a service that a surface calls is given a `Caller`, and says which scope it needs; what it
then works on is the caller's own tenant, so that what belongs to others looks absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from voiceforge.errors import PermissionDenied

DEFAULT_TENANT = "default"
"""The only one where there are no accounts; where there are, the one that runs the server."""


class Scope(StrEnum):
    """What a caller may do."""

    TRANSCRIBE = "transcribe"
    """Recordings, jobs, batches, uploads and streams of their own making."""
    READ = "transcriptions:read"
    WRITE = "transcriptions:write"
    """Cancel, erase and retry."""
    WEBHOOKS = "webhooks:manage"
    CACHE = "cache:clear"
    USAGE = "usage:read"
    KEYS = "keys:manage"
    USERS = "users:manage"
    AUDIT = "audit:read"
    DATA = "data:manage"
    """Export and erase everything of a person or of the tenant."""
    TENANTS = "tenants:manage"
    """Other tenants: for those who run the server."""


class Role(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"
    SERVICE = "service"
    """A program; it has keys and no password."""


EVERYTHING = frozenset(Scope)
_USING = frozenset({Scope.TRANSCRIBE, Scope.READ, Scope.WRITE})
_OF_ROLES: Mapping[Role, frozenset[Scope]] = {
    Role.OWNER: EVERYTHING,
    Role.ADMIN: EVERYTHING - {Scope.DATA},
    Role.MEMBER: _USING | {Scope.WEBHOOKS, Scope.CACHE, Scope.USAGE},
    Role.VIEWER: frozenset({Scope.READ, Scope.USAGE}),
    Role.SERVICE: _USING | {Scope.WEBHOOKS},
}


def scopes_of(role: Role, tenant: str) -> frozenset[Scope]:
    """What somebody with this role in this tenant may do."""
    scopes = _OF_ROLES[role]
    return scopes if tenant == DEFAULT_TENANT else scopes - {Scope.TENANTS}


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who is known, for as long as one request or one connection.

    user_id: None for a key that is nobody's own. key_id: None where they came with something else.
    models: the ids they may use; None: all. tier: the name of the tenant's limits; None: there are none.
    key_tier: likewise of limits that are the key's alone, and hold besides.
    address: where they call from, as far as that is known. request_id: of the request or the socket that they
    came with; None: with none.
    until: Unix seconds; what they came with ends then, and what they are given for it. None: it lasts.
    """

    tenant: str
    role: Role
    scopes: frozenset[Scope]
    user_id: str | None = None
    key_id: str | None = None
    models: frozenset[str] | None = None
    tier: str | None = None
    key_tier: str | None = None
    address: str | None = None
    until: float | None = None
    request_id: str | None = None

    def needs(self, *either: Scope) -> str:
        """The tenant to work on.

        Raises:
            PermissionDenied: they have none of these scopes.
        """
        if not any(scope in self.scopes for scope in either):
            names = " or ".join(either)
            raise PermissionDenied(f"this needs the scope {names}", field="scope", choices=either)
        return self.tenant

    def needs_to_run_the_server(self) -> None:
        """For what is of all tenants, and changes nothing.

        Raises:
            PermissionDenied: they are of a tenant that does not run the server, or may not see what it does.
        """
        if self.tenant != DEFAULT_TENANT:
            raise PermissionDenied("this is for those who run the server", field="scope")
        self.needs(Scope.USAGE, Scope.TENANTS)

    def check_model(self, model_id: str) -> None:
        """
        Raises:
            PermissionDenied: the model is none of theirs.
        """
        if self.models is not None and model_id not in self.models:
            raise PermissionDenied("this key may not use that model", field="model")


def trusted(tenant: str = DEFAULT_TENANT) -> Caller:
    """Whoever owns the machine, and the server itself when it works for a tenant."""
    return Caller(tenant, Role.OWNER, EVERYTHING)


OWNER = trusted()
"""The caller where there are no accounts."""
