"""`voiceforge backup`: a copy of jobs and recordings, while the server runs."""

from __future__ import annotations

from pathlib import Path

import click

from voiceforge.cli.common_options import can_be_quiet, reads_settings
from voiceforge.cli.ports import Choices, Ports
from voiceforge.cli.progress import display
from voiceforge.cli.words import bytes_text

_EPILOG = """\b
Examples:
  voiceforge backup /backups/2026-11-21
  voiceforge backup /backups/2026-11-21.tar
"""


@click.command(epilog=_EPILOG)
@click.argument("target", type=click.Path(path_type=Path), metavar="FOLDER|FILE.tar")
@can_be_quiet
@reads_settings
@click.pass_context
def command(ctx: click.Context, target: Path, quiet: bool, config: Path | None) -> None:
    """Copy the database and the recordings of the data folder, also while the server runs.

    The copy appears when it is whole. PostgreSQL and object stores have tools of their own.
    """
    backups = ctx.ensure_object(Ports).backups(Choices(config, quiet=quiet))
    with display(quiet=quiet) as screen:
        bar = screen.bar(str(target), "bytes")
        copied = backups.make(target, bar.update)
    if not quiet:
        click.echo(f"{target}: {copied.recordings} recordings, {bytes_text(copied.size_bytes)}")
