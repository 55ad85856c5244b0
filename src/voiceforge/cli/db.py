"""`voiceforge db`: whether the database fits this program, and bringing it there."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click

from voiceforge.cli.common_options import can_be_quiet, prints_json, reads_settings
from voiceforge.cli.complaints import EXIT_FAILED
from voiceforge.cli.ports import Choices, Ports, Schema

Result = TypeVar("Result")

_EPILOG = """\b
Examples:
  voiceforge db check
  voiceforge db upgrade
  voiceforge db downgrade --to base --yes
"""
_FINE = "the database is what this program needs: {}"


@click.group(epilog=_EPILOG)
def command() -> None:
    """Check, upgrade and downgrade the database of jobs.

    The server upgrades its own SQLite file at start; a database that `database.url` names is upgraded
    here, while no server uses it.
    """


@command.command()
@prints_json
@reads_settings
@click.pass_context
def check(ctx: click.Context, as_json: bool, config: Path | None) -> None:
    """Tell whether the database fits this program; exits with 1 where it does not, and says how."""

    async def look(schema: Schema) -> tuple[str | None, list[str]]:
        current = await schema.current()
        return current, await schema.drift() if current == schema.head() else []

    schema_head, (current, drift) = _run(ctx, Choices(config), look)
    fits = current == schema_head and not drift
    if as_json:
        report = {"fits": fits, "current": current, "needed": schema_head, "differences": drift}
        click.echo(json.dumps(report, indent=2))
    elif fits:
        click.echo(_FINE.format(schema_head))
    elif current is None:
        click.echo("the database has no tables yet: run `voiceforge db upgrade`")
    elif current != schema_head:
        click.echo(
            f"the database is at {current}, this program needs {schema_head}: run `voiceforge db upgrade`"
            " (or a newer VoiceForge, where that has upgraded it)"
        )
    else:
        click.echo(f"the database is at {schema_head}, but its tables were changed by hand:")
        for difference in drift:
            click.echo(f"  {difference}")
    if not fits:
        ctx.exit(EXIT_FAILED)


@command.command()
@click.option("--to", metavar="REVISION", default="head", help="Not to the newest, but to this one.")
@can_be_quiet
@reads_settings
@click.pass_context
def upgrade(ctx: click.Context, to: str, quiet: bool, config: Path | None) -> None:
    """Bring the database to what this program needs; harmless where it is that already."""

    async def act(schema: Schema) -> tuple[str | None, str]:
        return await schema.current(), await schema.upgrade(to)

    _, (before, after) = _run(ctx, Choices(config, quiet=quiet), act)
    _tell(before, after, quiet)


@command.command()
@click.option("--to", metavar="REVISION", default="-1", help="To this one, or `base`: no tables. [one step]")
@click.option("--yes", is_flag=True, help="Also where data is lost.")
@can_be_quiet
@reads_settings
@click.pass_context
def downgrade(ctx: click.Context, to: str, yes: bool, quiet: bool, config: Path | None) -> None:
    """Bring the database back to an older state, for an older program. What only the newer one has room for
    is lost: make a copy first."""
    if not yes:
        raise click.UsageError("data is lost by this; make a copy of the database, then say --yes")

    async def act(schema: Schema) -> tuple[str | None, str]:
        return await schema.current(), await schema.downgrade(to)

    _, (before, after) = _run(ctx, Choices(config, quiet=quiet), act)
    _tell(before, after, quiet)


def _run(
    ctx: click.Context, choices: Choices, act: Callable[[Schema], Awaitable[Result]]
) -> tuple[str, Result]:
    """What this program needs, and what `act` returned."""

    async def run() -> tuple[str, Result]:
        async with ctx.ensure_object(Ports).schema(choices) as schema:
            return schema.head(), await act(schema)

    from voiceforge.cli import event_loop

    return event_loop.run(run())


def _tell(before: str | None, after: str, quiet: bool) -> None:
    if quiet:
        return
    if (before or "") == after:
        click.echo(f"nothing to do: the database is at {after or 'base'}")
    else:
        click.echo(f"the database went from {before or 'base'} to {after or 'base'}")
