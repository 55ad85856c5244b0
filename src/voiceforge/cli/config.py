"""`voiceforge config`: the settings in force, and a file to start from."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import click

from voiceforge.cli.common_options import prints_json, reads_settings
from voiceforge.cli.ports import Choices, Ports
from voiceforge.cli.tables import print_table

_EPILOG = """\b
Examples:
  voiceforge config show
  voiceforge config example > voiceforge.toml
  VOICEFORGE_SERVER__PORT=9000 voiceforge config show --json
"""


@click.group(epilog=_EPILOG)
def command() -> None:
    """Show the settings and where each comes from."""


@command.command()
@prints_json
@reads_settings
@click.pass_context
def show(ctx: click.Context, as_json: bool, config: Path | None) -> None:
    """Every setting in force, with its source; secrets are masked."""
    rows = ctx.ensure_object(Ports).setting_rows(Choices(config))
    if as_json:
        document = {row.name: {"value": _plain(row.value), "source": row.source} for row in rows}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print_table(("setting", "source", "value"), [(row.name, row.source, row.value) for row in rows])


def _plain(value: str) -> object:
    """Rows carry values as TOML writes them; what is no TOML is the mask, or a setting without a value."""
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return None if value == "unset" else value


@command.command()
@click.pass_context
def example(ctx: click.Context) -> None:
    """A settings file with every setting at its default."""
    click.echo(ctx.ensure_object(Ports).example_config(), nl=False)
