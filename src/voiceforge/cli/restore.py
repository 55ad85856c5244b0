"""`voiceforge restore`: a copy of `voiceforge backup` back into the data folder."""

from __future__ import annotations

from pathlib import Path

import click

from voiceforge.cli.common_options import can_be_quiet, reads_settings
from voiceforge.cli.ports import Choices, Ports
from voiceforge.cli.progress import display
from voiceforge.cli.words import bytes_text

_EPILOG = """\b
Examples:
  voiceforge restore /backups/2026-11-21
  voiceforge restore /backups/2026-11-21.tar --force
"""


@click.command(epilog=_EPILOG)
@click.argument("source", type=click.Path(path_type=Path), metavar="FOLDER|FILE.tar")
@click.option("--force", is_flag=True, help="Replace the jobs and recordings that are there.")
@can_be_quiet
@reads_settings
@click.pass_context
def command(ctx: click.Context, source: Path, force: bool, quiet: bool, config: Path | None) -> None:
    """Put a copy into the data folder. Stop the server first; when it starts, it goes on with the jobs that
    were not finished.

    Everything is checked before anything is replaced.
    """
    backups = ctx.ensure_object(Ports).backups(Choices(config, quiet=quiet))
    with display(quiet=quiet) as screen:
        bar = screen.bar(str(source), "bytes")
        copied = backups.restore(source, force=force, on_progress=bar.update)
    if not quiet:
        click.echo(f"restored: {copied.recordings} recordings, {bytes_text(copied.size_bytes)}")
