"""`voiceforge audit`: the audit log of the database of this machine, listed, checked and exported."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from voiceforge.cli.common_options import prints_json, reads_settings
from voiceforge.cli.complaints import EXIT_FAILED
from voiceforge.cli.ports import Choices, Ports
from voiceforge.cli.tables import print_table

if TYPE_CHECKING:
    from voiceforge.services.audit import Audit

Result = TypeVar("Result")
Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_EPILOG = """\b
Examples:
  voiceforge audit list --action key.
  voiceforge audit verify
  voiceforge audit verify --anchor 1200:4be6…
  voiceforge audit export --format csv > audit.csv

\b
The database of this machine is read, as whoever owns the machine.
"""
_HASH_DIGITS = 64


@click.group(epilog=_EPILOG)
def command() -> None:
    """Read, check and export the audit log."""


def _of_a_tenant(command: Decorated) -> Decorated:
    tenant = click.option("--tenant", metavar="ID", default="default", show_default=True, help="Whose log.")
    return tenant(reads_settings(command))


@command.command("list")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="At most so many.")
@click.option("--before", type=click.IntRange(1), metavar="NUMBER", help="Only those before this one.")
@click.option(
    "--action",
    "actions",
    multiple=True,
    metavar="NAME",
    help="Only this, such as key.created; `key.` for all that begin so; may be repeated.",
)
@click.option("--target", metavar="ID", help="Only what was done to this.")
@click.option("--actor", metavar="ID", help="Only what this user or key did.")
@prints_json
@_of_a_tenant
@click.pass_context
def list_(
    ctx: click.Context,
    /,
    limit: int,
    before: int | None,
    as_json: bool,
    tenant: str,
    config: Path | None,
    **wanted: Any,
) -> None:
    """What was done, the newest first."""
    from voiceforge.services.access import trusted
    from voiceforge.services.audit import AuditFilter, document

    chosen = AuditFilter(wanted["actions"], wanted["actor"], wanted["target"])
    found = _run(ctx, config, lambda audit: audit.list(trusted(tenant), chosen, before=before, limit=limit))
    told = [document(entry, None) for entry in found]
    if as_json:
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    print_table(
        ("NUMBER", "AT", "WHO", "FROM", "ACTION", "TARGET"),
        [
            (
                str(one["number"]),
                one["at"],
                one["actor"]["id"] or one["actor"]["kind"],
                one["address"] or "",
                one["action"],
                one["target"] or "",
            )
            for one in told
        ],
    )


@command.command()
@click.option(
    "--anchor",
    "anchors",
    multiple=True,
    metavar="NUMBER:HASH",
    help="The hash of an entry as it was noted elsewhere; may be repeated.",
)
@prints_json
@_of_a_tenant
@click.pass_context
def verify(
    ctx: click.Context, anchors: tuple[str, ...], as_json: bool, tenant: str, config: Path | None
) -> None:
    """Tell whether every entry is there and as it was written; exits with 1 where one is not, and says
    which is the first."""
    from voiceforge.services.access import trusted

    noted = dict(map(_anchor, anchors))
    verdict = _run(ctx, config, lambda audit: audit.verify(trusted(tenant), noted))
    if as_json:
        report = {
            "whole": verdict.whole,
            "checked": verdict.checked,
            "head": {"number": verdict.head_number, "hash": verdict.head_hash},
            "broken_at": verdict.broken_at,
            "problem": verdict.problem,
        }
        click.echo(json.dumps(report, indent=2))
    elif verdict.whole:
        click.echo(f"{verdict.checked} entries are as they were written")
        click.echo(f"head: {verdict.head_number}:{verdict.head_hash}")
    else:
        click.echo(f"entry {verdict.broken_at}: {verdict.problem}")
    if not verdict.whole:
        ctx.exit(EXIT_FAILED)


@command.command()
@click.option("--format", "fmt", type=click.Choice(("jsonl", "csv")), default="jsonl", show_default=True)
@_of_a_tenant
@click.pass_context
def export(ctx: click.Context, fmt: str, tenant: str, config: Path | None) -> None:
    """Print the whole log, the oldest entry first."""
    from voiceforge.services.access import trusted
    from voiceforge.services.audit import COLUMNS, csv_line, csv_row

    async def write(lines: AsyncGenerator[dict[str, Any], None]) -> None:
        if fmt == "csv":
            click.echo(csv_line(COLUMNS), nl=False)
        async for line in lines:
            if fmt == "csv":
                click.echo(csv_row(line), nl=False)
            else:
                click.echo(json.dumps(line, ensure_ascii=False))

    _run(ctx, config, lambda audit: write(audit.export(trusted(tenant))))


def _anchor(text: str) -> tuple[int, str]:
    number, _, hashed = text.partition(":")
    if not number.isdecimal() or len(hashed) != _HASH_DIGITS:
        raise click.BadParameter(f"{text[:100]!r} is no NUMBER:HASH", param_hint="--anchor")
    return int(number), hashed.lower()


def _run(ctx: click.Context, config: Path | None, act: Callable[[Audit], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        async with ctx.ensure_object(Ports).installation(Choices(config)) as here:
            await here.check()
            return await act(here.audit)

    from voiceforge.cli import event_loop

    return event_loop.run(run())
