"""`voiceforge keys`: API keys, of the database of this machine or of a server."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from voiceforge.cli.common_options import KEY_VARIABLE, prints_json, reads_settings
from voiceforge.cli.ports import Choices, Installation, Ports
from voiceforge.cli.tables import print_table

if TYPE_CHECKING:
    from voiceforge.cli.server_client import ServerClient

Result = TypeVar("Result")
Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_ROLES = ("owner", "admin", "member", "viewer", "service")
_DAY_S = 86_400.0
_EPILOG = """\b
Examples:
  voiceforge keys create "build server" --role service --expires-days 90
  voiceforge keys create kiosk --role service --scope transcribe --address 192.0.2.0/24
  voiceforge keys list
  voiceforge keys rotate key_019f… --overlap-s 3600
  voiceforge keys revoke key_019f…

\b
Without --server, the database of this machine is worked on, as whoever owns the machine.
With it, the server is asked, with the key in VOICEFORGE_API_KEY.
"""


class KeyDesk(Protocol):
    """Where keys are made and taken back; answers are as the API gives them."""

    async def create(self, fields: dict[str, Any]) -> dict[str, Any]: ...
    async def list(self, limit: int, cursor: str | None) -> dict[str, Any]: ...
    async def rotate(self, key_id: str, overlap_s: float | None) -> dict[str, Any]: ...
    async def revoke(self, key_id: str) -> None: ...


@click.group(epilog=_EPILOG)
def command() -> None:
    """Create, list, rotate and revoke API keys."""


def _at_a_desk(command: Decorated) -> Decorated:
    """Adds --server, --tenant and what reads settings."""
    server = click.option("--server", metavar="URL", help="Ask this server, not the database here.")
    tenant = click.option(
        "--tenant", metavar="ID", help="Whose keys, in the database here.  [default: default]"
    )
    return server(tenant(reads_settings(command)))


@command.command()
@click.argument("name")
@click.option("--role", type=click.Choice(_ROLES), help="What it may do at most.  [default: yours]")
@click.option("--scope", "scopes", multiple=True, metavar="NAME", help="Only this; may be repeated.")
@click.option("--model", "models", multiple=True, metavar="ID", help="Only this model; may be repeated.")
@click.option(
    "--address", "addresses", multiple=True, metavar="NETWORK", help="Only from there; may be repeated."
)
@click.option("--tier", metavar="NAME", help="Whose limits it has.  [default: those of the tenant]")
@click.option("--expires-days", type=click.FloatRange(min=0, min_open=True), help="It is good for so long.")
@prints_json
@_at_a_desk
@click.pass_context
def create(
    ctx: click.Context,
    /,
    name: str,
    role: str | None,
    expires_days: float | None,
    as_json: bool,
    server: str | None,
    tenant: str | None,
    config: Path | None,
    **lists: Any,
) -> None:
    """Make a key, and print it: it is not told again."""
    fields: dict[str, Any] = {"name": name, "role": role, "tier": lists.pop("tier")}
    fields |= {field: list(values) for field, values in lists.items() if values}
    if expires_days is not None:
        fields["expires_at"] = time.time() + expires_days * _DAY_S
    given = {field: value for field, value in fields.items() if value is not None}
    made = _run(ctx, server, tenant, config, lambda desk: desk.create(given))
    _tell_new(made, as_json)


@command.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="At most so many.")
@click.option("--cursor", metavar="TEXT", help="The next page, from next_cursor with --json.")
@prints_json
@_at_a_desk
@click.pass_context
def list_(
    ctx: click.Context,
    limit: int,
    cursor: str | None,
    as_json: bool,
    server: str | None,
    tenant: str | None,
    config: Path | None,
) -> None:
    """The newest keys first, also those that are over."""
    page = _run(ctx, server, tenant, config, lambda desk: desk.list(limit, cursor))
    if as_json:
        click.echo(json.dumps(page, indent=2, ensure_ascii=False))
        return
    rows = [
        (
            key["id"],
            key["hint"],
            key["status"],
            key["role"],
            key["name"],
            key["last_used_at"] or "never",
            key["expires_at"] or "–",
        )
        for key in page["data"]
    ]
    print_table(("id", "key", "status", "role", "name", "last used", "expires"), rows)


@command.command()
@click.argument("key_id", metavar="ID")
@click.option(
    "--overlap-s",
    type=click.FloatRange(0, 90 * _DAY_S),
    help="For so long the old key is good too.  [default: a day]",
)
@prints_json
@_at_a_desk
@click.pass_context
def rotate(
    ctx: click.Context,
    key_id: str,
    overlap_s: float | None,
    as_json: bool,
    server: str | None,
    tenant: str | None,
    config: Path | None,
) -> None:
    """Make another key that can do the same, and print it."""
    made = _run(ctx, server, tenant, config, lambda desk: desk.rotate(key_id, overlap_s))
    _tell_new(made, as_json)


@command.command()
@click.argument("key_ids", nargs=-1, required=True, metavar="ID...")
@_at_a_desk
@click.pass_context
def revoke(
    ctx: click.Context,
    key_ids: tuple[str, ...],
    server: str | None,
    tenant: str | None,
    config: Path | None,
) -> None:
    """Take keys back: within a second they let nobody in any more."""

    async def all_of_them(desk: KeyDesk) -> None:
        for key_id in key_ids:
            await desk.revoke(key_id)
            click.echo(f"{key_id} revoked")

    _run(ctx, server, tenant, config, all_of_them)


@command.command()
def generate() -> None:
    """Print a new key that no database knows yet, for `auth.first_key`."""
    from voiceforge.services.key_text import new_key

    click.echo(new_key())


def _tell_new(made: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(made, indent=2, ensure_ascii=False))
        return
    click.echo(made["key"])
    click.echo(f"{made['id']}: keep the key, it is not told again", err=True)


def _run(
    ctx: click.Context,
    server: str | None,
    tenant: str | None,
    config: Path | None,
    act: Callable[[KeyDesk], Awaitable[Result]],
) -> Result:
    if server is not None and tenant is not None:
        raise click.UsageError("--tenant is for the database here; a server knows whose key it is asked with")

    async def run() -> Result:
        if server is not None:
            async with _at_server(server) as desk:
                return await act(desk)
        async with ctx.ensure_object(Ports).installation(Choices(config)) as here:
            await here.check()
            return await act(_LocalDesk(here, tenant))

    from voiceforge.cli import event_loop

    return event_loop.run(run())


@asynccontextmanager
async def _at_server(server: str) -> AsyncIterator[KeyDesk]:
    from voiceforge.cli.server_client import ServerClient

    async with ServerClient(server, os.environ.get(KEY_VARIABLE)) as client:
        yield _RemoteDesk(client)


class _RemoteDesk:
    def __init__(self, client: ServerClient) -> None:
        self._client = client

    async def create(self, fields: dict[str, Any]) -> dict[str, Any]:
        return await self._client.ask("POST", "/v1/keys", json=fields)

    async def list(self, limit: int, cursor: str | None) -> dict[str, Any]:
        page = {"limit": limit} | ({"cursor": cursor} if cursor is not None else {})
        return await self._client.ask("GET", "/v1/keys", params=page)

    async def rotate(self, key_id: str, overlap_s: float | None) -> dict[str, Any]:
        body = {} if overlap_s is None else {"overlap_s": overlap_s}
        return await self._client.ask("POST", f"/v1/keys/{key_id}/rotate", json=body)

    async def revoke(self, key_id: str) -> None:
        await self._client.tell("DELETE", f"/v1/keys/{key_id}")


class _LocalDesk:
    """In the name of whoever owns the machine."""

    def __init__(self, here: Installation, tenant: str | None) -> None:
        from voiceforge.services.access import DEFAULT_TENANT, trusted

        self._keys = here.keys
        self._caller = trusted(tenant or DEFAULT_TENANT)

    async def create(self, fields: dict[str, Any]) -> dict[str, Any]:
        from voiceforge.errors import UnsupportedOption
        from voiceforge.services.access import Role, Scope
        from voiceforge.services.key_documents import new_key_document
        from voiceforge.services.keys import KeyWish

        known = [scope.value for scope in Scope]
        for name in fields.get("scopes", ()):
            if name not in known:
                raise UnsupportedOption(f"there is no scope {name!r}", field="scopes", choices=known)
        wish = KeyWish(
            name=fields["name"],
            role=Role(fields["role"]) if "role" in fields else None,
            scopes=frozenset(map(Scope, fields["scopes"])) if "scopes" in fields else None,
            models=tuple(fields["models"]) if "models" in fields else None,
            addresses=tuple(fields["addresses"]) if "addresses" in fields else None,
            tier=fields.get("tier"),
            expires_at=fields.get("expires_at"),
        )
        return new_key_document(await self._keys.create(self._caller, wish))

    async def list(self, limit: int, cursor: str | None) -> dict[str, Any]:
        from voiceforge.services.key_documents import key_document

        found = [
            key_document(key) for key in await self._keys.list(self._caller, before=cursor, limit=limit + 1)
        ]
        shown = found[:limit]
        return {"data": shown, "next_cursor": shown[-1]["id"] if len(found) > limit else None}

    async def rotate(self, key_id: str, overlap_s: float | None) -> dict[str, Any]:
        from voiceforge.services.key_documents import new_key_document
        from voiceforge.services.keys import OVERLAP_S

        overlap = OVERLAP_S if overlap_s is None else overlap_s
        return new_key_document(await self._keys.rotate(self._caller, key_id, overlap))

    async def revoke(self, key_id: str) -> None:
        await self._keys.revoke(self._caller, key_id)
