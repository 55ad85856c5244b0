"""`voiceforge models`: the catalog, and what of it is on this machine."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from voiceforge.cli.common_options import can_be_quiet, prints_json, reads_settings
from voiceforge.cli.ports import Choices, Ports
from voiceforge.cli.tables import plain_lines, print_table
from voiceforge.cli.words import bytes_text

if TYPE_CHECKING:
    from voiceforge.services.models import ModelInfo, PullProgress

_MOST_LANGUAGES = 6
_EPILOG = """\b
Examples:
  voiceforge models list
  voiceforge models show whisper-small
  voiceforge models pull whisper-small
  voiceforge transcribe talk.mp3 --model whisper-small
"""


@click.group(epilog=_EPILOG)
def command() -> None:
    """List, show, pull and remove models."""


@command.command("list")
@click.option("--installed", is_flag=True, help="Only what is on this machine.")
@prints_json
@reads_settings
@click.pass_context
def list_(ctx: click.Context, installed: bool, as_json: bool, config: Path | None) -> None:
    """Every model known, and whether it is installed."""
    with ctx.ensure_object(Ports).workshop(Choices(config)) as workshop:
        models = workshop.services.models
        default = models.resolve(None)
        infos = models.installed() if installed else models.list()
    if as_json:
        click.echo(
            json.dumps([{**_document(info), "default": info.id == default} for info in infos], indent=2)
        )
        return
    rows = [
        (
            info.id,
            _state(info, default),
            _size(info),
            _languages(info, _MOST_LANGUAGES),
            info.licence,
        )
        for info in infos
    ]
    print_table(("model", "state", "size", "languages", "licence"), rows, right=frozenset({2}))


@command.command()
@click.argument("model")
@prints_json
@reads_settings
@click.pass_context
def show(ctx: click.Context, model: str, as_json: bool, config: Path | None) -> None:
    """Everything known about one model."""
    with ctx.ensure_object(Ports).workshop(Choices(config)) as workshop:
        models = workshop.services.models
        info = models.get(model)
        default = models.resolve(None)
    if as_json:
        click.echo(json.dumps({**_document(info), "default": info.id == default}, indent=2))
        return
    rows = [
        ("id", info.id),
        ("title", info.title),
        ("state", _state(info, default)),
        ("family", f"{info.family}, run by {info.runtime}"),
        ("from", info.source),
        ("revision", info.revision),
        ("licence", info.licence),
        ("size", _size(info)),
        *([("folder", info.folder)] if info.folder else []),
        *(("file", f"{name}, {bytes_text(size)}") for name, size in info.files),
        ("languages", _languages(info, None)),
        *(
            (name.replace("_", " "), _capability(name, value))
            for name, value in (info.capabilities or {}).items()
        ),
    ]
    if info.hint:
        rows.append(("to use it", info.hint))
    for line in plain_lines(rows):
        click.echo(line)


@command.command()
@click.argument("model")
@can_be_quiet
@reads_settings
@click.pass_context
def pull(ctx: click.Context, model: str, quiet: bool, config: Path | None) -> None:
    """Download a model: a catalog id, or a repository on the hub (owner/name).

    Files are checked against the hub's checksums. A pull that broke off is continued by the next one.
    """
    from voiceforge.cli import event_loop
    from voiceforge.cli.progress import display

    with ctx.ensure_object(Ports).workshop(Choices(config, quiet=quiet)) as workshop:
        models = workshop.services.models
        before = models.resolve(model)
        with display(quiet=quiet) as screen:
            bar = screen.bar(before, "bytes")

            def show_progress(progress: PullProgress) -> None:
                bar.update(progress.done_bytes, progress.total_bytes)

            info = event_loop.run(models.pull(model, show_progress))
    if not quiet:
        click.echo(f"{info.id} is here: {_size(info)}, revision {info.revision}")
        if info.hint:
            click.echo(f"To use it: {info.hint}")


@command.command()
@click.argument("model")
@can_be_quiet
@reads_settings
@click.pass_context
def remove(ctx: click.Context, model: str, quiet: bool, config: Path | None) -> None:
    """Delete a model's files."""
    with ctx.ensure_object(Ports).workshop(Choices(config, quiet=quiet)) as workshop:
        models = workshop.services.models
        model_id = models.resolve(model)
        models.remove(model)
    if not quiet:
        click.echo(f"{model_id} is removed")


def _document(info: ModelInfo) -> dict[str, object]:
    return dataclasses.asdict(info)


def _state(info: ModelInfo, default: str) -> str:
    state = "installed" if info.installed else "available"
    if info.installed and info.created:
        state += f" {time.strftime('%Y-%m-%d', time.localtime(info.created))}"
    return f"{state}, default" if info.id == default else state


def _size(info: ModelInfo) -> str:
    return "unknown" if info.size_bytes is None else bytes_text(info.size_bytes)


def _languages(info: ModelInfo, most: int | None) -> str:
    if not info.languages:
        return "unknown" if info.installed else "known once it is pulled"
    if most is not None and len(info.languages) > most:
        return f"{len(info.languages)} languages"
    return " ".join(info.languages)


def _capability(name: str, value: object) -> str:
    match value:
        case False if name == "word_times":
            return "by alignment"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return ", ".join(map(str, value))
        case _:
            return str(value)
