"""`voiceforge worker`: works on jobs that servers accepted, in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from voiceforge.cli.common_options import reads_settings
from voiceforge.cli.ports import Choices, Ports, WorkerWish

LANES = ("interactive", "bulk", "training", "maintenance")

_EPILOG = """\b
Needs jobs.broker_url (Redis or RabbitMQ), and the database and store of the
servers. Stops on Ctrl-C or SIGTERM, and gives back what it was working on:
others go on from the last saved chunk. A second signal stops at once.

\b
Examples:
  voiceforge worker
  voiceforge worker --concurrency 8
  voiceforge worker --lanes interactive
"""


def _lanes(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    lanes = tuple(lane.strip() for lane in (value or "").split(",") if lane.strip())
    for lane in lanes:
        if lane not in LANES:
            raise click.BadParameter(f"no lane {lane!r}; choose from {', '.join(LANES)}", ctx, param)
    return tuple(dict.fromkeys(lanes))


def _address(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, int] | None:
    if value is None:
        return None
    host, colon, port = value.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65_536):
        raise click.BadParameter(f"{value!r} does not look like 127.0.0.1:9100", ctx, param)
    return host.strip("[]"), int(port)


@click.command(epilog=_EPILOG)
@click.option(
    "--lanes",
    metavar="LIST",
    callback=_lanes,
    help="Only jobs of these: interactive (high priority), bulk, training, maintenance.  [default: all]",
)
@click.option(
    "--concurrency", type=click.IntRange(1, 256), help="Jobs at a time.  [default: jobs.workers, or 4]"
)
@click.option(
    "--metrics",
    metavar="HOST:PORT",
    callback=_address,
    help="Answer GET /metrics there, for Prometheus.  [default: nowhere]",
)
@reads_settings
@click.pass_context
def command(
    ctx: click.Context,
    lanes: tuple[str, ...],
    concurrency: int | None,
    metrics: tuple[str, int] | None,
    config: Path | None,
) -> None:
    """Work on jobs that servers accepted."""
    ctx.ensure_object(Ports).worker(Choices(config, {}), WorkerWish(lanes, concurrency, metrics), _announce)


def _announce() -> None:
    click.echo("VoiceForge works on jobs")
