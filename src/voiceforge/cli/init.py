"""`voiceforge init`: a database, and the first key to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from voiceforge.cli.common_options import prints_json, reads_settings
from voiceforge.cli.ports import Choices, Ports

if TYPE_CHECKING:
    from voiceforge.services.keys import NewKey

_EPILOG = """\b
Examples:
  voiceforge init
  export VOICEFORGE_API_KEY=$(voiceforge init --json | jq -r .key)

\b
Containers do without: a key from `voiceforge keys generate` in VOICEFORGE_AUTH__FIRST_KEY
is added by the server at its start.
"""


@click.command(epilog=_EPILOG)
@prints_json
@reads_settings
@click.pass_context
def command(ctx: click.Context, as_json: bool, config: Path | None) -> None:
    """Make the database, and the key of its first owner, which is printed once.

    Harmless when repeated: what is there stays as it is.
    """

    async def run() -> tuple[str, bool, NewKey | None]:
        async with ctx.ensure_object(Ports).installation(Choices(config)) as here:
            await here.schema.upgrade()
            return here.database, here.protected, await here.keys.first_owner()

    from voiceforge.cli import event_loop

    database, protected, made = event_loop.run(run())
    if as_json:
        told = {"database": database, "id": made.key.id if made else None, "key": made.text if made else None}
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(f"database: {database}")
    if made is None:
        click.echo("an owner has a key to it; `voiceforge keys list` shows which, `keys create` makes more")
    else:
        click.echo(f"the first owner's key, which is not told again:\n\n  {made.text}\n")
    start = "voiceforge serve" if protected else "VOICEFORGE_AUTH__REQUIRED=true voiceforge serve"
    click.echo(f"start the server, open to those with a key only:\n\n  {start}\n")
    click.echo("and use it:\n\n  curl -H 'Authorization: Bearer vf_…' http://127.0.0.1:8000/v1/keys")
