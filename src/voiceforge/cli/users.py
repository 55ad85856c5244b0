"""`voiceforge users`: the people of the database of this machine, in the name of whoever owns it."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from voiceforge.cli.common_options import prints_json, reads_settings
from voiceforge.cli.ports import Choices, Ports
from voiceforge.cli.tables import print_table

if TYPE_CHECKING:
    from voiceforge.services.accounts import User
    from voiceforge.services.people import People

Result = TypeVar("Result")

_ROLES = ("owner", "admin", "member", "viewer", "service")
_EPILOG = """\b
Examples:
  voiceforge users add ann@example.org --role owner
  pass show ann | voiceforge users add ann@example.org --role owner --password-stdin
  voiceforge users list
  voiceforge users role bob@example.org viewer
  voiceforge users disable bob@example.org
  voiceforge users verify carol@example.org
"""


@click.group(epilog=_EPILOG)
def command() -> None:
    """Add, list and change people, on this machine's database.

    Where no letters are sent, tokens are printed here, for you to hand on.
    """


_tenant = click.option("--tenant", metavar="ID", help="Whose people.  [default: default]")
_password = click.option(
    "--password-stdin", is_flag=True, help="The password is the first line of the input."
)


@command.command()
@click.argument("email")
@click.option("--role", type=click.Choice(_ROLES), default="member", show_default=True)
@click.option("--name", metavar="TEXT", help="What they are called.")
@_tenant
@_password
@prints_json
@reads_settings
@click.pass_context
def add(
    ctx: click.Context,
    email: str,
    role: str,
    name: str | None,
    tenant: str | None,
    password_stdin: bool,
    as_json: bool,
    config: Path | None,
) -> None:
    """Somebody who may come in from now on. Without --password-stdin, a token that sets a password is
    printed, or sent."""
    password = _read_password() if password_stdin else None

    async def act(people: People) -> dict[str, Any]:
        from voiceforge.services.access import DEFAULT_TENANT, Role, trusted

        boss = trusted(tenant or DEFAULT_TENANT)
        made = await people.members.add(boss, email, Role(role), name=name, password=password)
        told = _document(made)
        if password is None and made.role != Role.SERVICE:
            handed = await people.members.hand_out_reset(boss, made.id)
            told |= {"reset_token": handed.token, "letter_sent": handed.token is None}
        await people.letters.wait_sent()
        return told

    _tell(_run(ctx, config, act), as_json)


@command.command("list")
@_tenant
@prints_json
@reads_settings
@click.pass_context
def list_(ctx: click.Context, tenant: str | None, as_json: bool, config: Path | None) -> None:
    """The newest first."""

    async def act(people: People) -> list[User]:
        from voiceforge.services.access import DEFAULT_TENANT, trusted

        boss, found = trusted(tenant or DEFAULT_TENANT), list[Any]()
        while page := await people.members.list(boss, before=found[-1].id if found else None, limit=100):
            found += page
        return found

    found = _run(ctx, config, act)
    if as_json:
        click.echo(json.dumps([_document(one) for one in found], indent=2, ensure_ascii=False))
        return
    rows = [
        (one.id, one.email, one.name or "–", one.role, "disabled" if one.disabled_at else "active")
        for one in found
    ]
    print_table(("id", "address", "name", "role", "status"), rows)


@command.command()
@click.argument("email")
@click.argument("role", type=click.Choice(_ROLES))
@reads_settings
@click.pass_context
def role(ctx: click.Context, email: str, role: str, config: Path | None) -> None:
    """Give somebody another role."""
    from voiceforge.services.access import Role

    changed = _run(ctx, config, lambda people: _change(people, email, role=Role(role)))
    click.echo(f"{changed.email} is {changed.role}")


@command.command()
@click.argument("email")
@reads_settings
@click.pass_context
def disable(ctx: click.Context, email: str, config: Path | None) -> None:
    """Let somebody in no more: within a second, in every process."""
    changed = _run(ctx, config, lambda people: _change(people, email, disabled=True))
    click.echo(f"{changed.email} is disabled")


@command.command()
@click.argument("email")
@reads_settings
@click.pass_context
def enable(ctx: click.Context, email: str, config: Path | None) -> None:
    """Let somebody in again."""
    changed = _run(ctx, config, lambda people: _change(people, email, disabled=False))
    click.echo(f"{changed.email} is enabled")


@command.command()
@click.argument("email")
@_password
@prints_json
@reads_settings
@click.pass_context
def password(
    ctx: click.Context, email: str, password_stdin: bool, as_json: bool, config: Path | None
) -> None:
    """Set a password, and end every session. Without --password-stdin, a token that sets one is printed, or
    sent."""
    wanted = _read_password() if password_stdin else None

    async def act(people: People) -> dict[str, Any]:
        from voiceforge.services.access import trusted

        if wanted is not None:
            return _document(await people.accounts.set_password(email, wanted))
        user = await people.accounts.find(email)
        handed = await people.members.hand_out_reset(trusted(user.tenant), user.id)
        await people.letters.wait_sent()
        return _document(user) | {"reset_token": handed.token, "letter_sent": handed.token is None}

    _tell(_run(ctx, config, act), as_json)


@command.command()
@click.argument("email")
@prints_json
@reads_settings
@click.pass_context
def verify(ctx: click.Context, email: str, as_json: bool, config: Path | None) -> None:
    """Confirm a registration in place of the letter."""
    _tell(_run(ctx, config, lambda people: _verified(people, email)), as_json)


@command.command("new-signing-key")
@click.option("--distrust", is_flag=True, help="Believe nothing that was signed before: everybody refreshes.")
@reads_settings
@click.pass_context
def new_signing_key(ctx: click.Context, distrust: bool, config: Path | None) -> None:
    """Have another key sign access tokens, in every process within a second."""

    async def act(people: People) -> None:
        await people.keys.rotate(distrust=distrust)

    _run(ctx, config, act)
    click.echo("another key signs from now on")


async def _verified(people: People, email: str) -> dict[str, Any]:
    return _document(await people.accounts.verify_by_hand(email))


async def _change(people: People, email: str, **change: Any) -> User:
    from voiceforge.services.access import trusted

    user = await people.accounts.find(email)
    return await people.members.change(trusted(user.tenant), user.id, **change)


def _read_password() -> str:
    return sys.stdin.readline().rstrip("\r\n")


def _document(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "role": user.role,
        "tenant": user.tenant,
        "disabled": user.disabled_at is not None,
    }


def _tell(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    click.echo(f"{told['email']} is {told['role']} of {told['tenant']}", err=bool(told.get("reset_token")))
    if told.get("reset_token"):
        click.echo(told["reset_token"])
        click.echo("sets their password, once, within an hour, at POST /v1/auth/password/reset", err=True)
    elif told.get("letter_sent"):
        click.echo("a letter that lets them set a password is on its way")


def _run(ctx: click.Context, config: Path | None, act: Callable[[People], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        async with ctx.ensure_object(Ports).installation(Choices(config)) as here:
            await here.check()
            return await act(here.people())

    from voiceforge.cli import event_loop

    return event_loop.run(run())
