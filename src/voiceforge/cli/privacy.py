"""`voiceforge privacy`: everything of a person, or of a tenant, exported or erased."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from voiceforge.cli.common_options import prints_json, reads_settings
from voiceforge.cli.ports import Choices, Ports

if TYPE_CHECKING:
    from voiceforge.services.personal_data import ErasedData

_EPILOG = """\b
Examples:
  voiceforge privacy export ann.tar --user us_019f… --audio
  voiceforge privacy erase --user us_019f… --yes
  voiceforge privacy erase --tenant tn_019f… --yes

\b
The database, the store and the folders of this machine are worked on, as whoever owns the machine. What a
running server has in its memory goes with its cache; `POST /v1/privacy/…` clears that too.
"""


@click.group(epilog=_EPILOG)
def command() -> None:
    """Export or erase everything of a person or a tenant."""


@command.command()
@click.argument("target", type=click.Path(path_type=Path, exists=False), metavar="FILE.tar")
@click.option("--user", metavar="ID", help="This person, of the tenant.")
@click.option("--tenant", metavar="ID", help="Whose person; without --user, the whole tenant.")
@click.option("--audio", is_flag=True, help="With the recordings.")
@reads_settings
@click.pass_context
def export(
    ctx: click.Context, target: Path, user: str | None, tenant: str | None, audio: bool, config: Path | None
) -> None:
    """Write rows, transcripts and, where wished, audio into a tar file, which must not be there yet."""
    from voiceforge.cli import event_loop
    from voiceforge.services.access import DEFAULT_TENANT, trusted

    if user is None and tenant is None:
        raise click.UsageError("name a --user or a --tenant")
    whose = tenant or DEFAULT_TENANT

    async def act() -> None:
        async with ctx.ensure_object(Ports).personal_data(Choices(config)) as data:
            tar = await (
                data.export_person(trusted(whose), user, audio=audio)
                if user is not None
                else data.export_tenant(trusted(), whose, audio=audio)
            )
            try:
                file = os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
            except OSError as error:
                raise click.ClickException(f"{target}: {error.strerror}") from None
            with file:
                async for piece in tar:
                    file.write(piece)

    event_loop.run(act())


@command.command()
@click.option("--user", metavar="ID", help="This person, of the tenant.")
@click.option("--tenant", metavar="ID", help="Whose person; without --user, the whole tenant.")
@click.option("--yes", is_flag=True, help="It cannot be taken back.")
@prints_json
@reads_settings
@click.pass_context
def erase(
    ctx: click.Context, user: str | None, tenant: str | None, yes: bool, as_json: bool, config: Path | None
) -> None:
    """Erase transcriptions, audio, uploads, accounts and keys; what broke off goes on with another call."""
    from voiceforge.cli import event_loop
    from voiceforge.services.access import DEFAULT_TENANT, trusted

    if user is None and tenant is None:
        raise click.UsageError("name a --user or a --tenant")
    if not yes:
        raise click.UsageError("what is erased cannot be had back; say --yes")

    async def act() -> ErasedData:
        async with ctx.ensure_object(Ports).personal_data(Choices(config)) as data:
            if user is not None:
                return await data.erase_person(trusted(tenant or DEFAULT_TENANT), user)
            return await data.erase_tenant(trusted(), tenant or DEFAULT_TENANT)

    erased = asdict(event_loop.run(act()))
    if as_json:
        click.echo(json.dumps(erased, indent=2))
    elif not any(erased.values()):
        click.echo("there was nothing")
    else:
        counts = {name: count for name, count in erased.items() if count and name != "person"}
        click.echo("erased" + "".join(f", {count} {name}" for name, count in counts.items()))
