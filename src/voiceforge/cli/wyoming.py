"""`voiceforge wyoming`: the server for voice assistants in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from voiceforge.cli.common_options import reads_settings
from voiceforge.cli.ports import Choices, Listening, Ports

_EPILOG = """\b
Wyoming is what Home Assistant speaks: Settings, Devices & services,
Add integration, Wyoming Protocol, then this machine and port.

\b
It knows no keys. Beyond this machine it takes --allow, or --insecure.
`voiceforge serve` speaks it too, where wyoming.enabled is set.

\b
Examples:
  voiceforge wyoming
  voiceforge wyoming --host 0.0.0.0 --allow 192.168.1.0/24
"""


@click.command(epilog=_EPILOG)
@click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port; 0 picks a free one.  [default: 10300]")
@click.option("--model", metavar="ID", help="The default model; it is loaded at start.")
@click.option(
    "--allow", multiple=True, metavar="NETWORK", help="Let in clients of this network only; repeatable."
)
@click.option("--insecure", is_flag=True, help="Listen beyond this machine for everyone.")
@reads_settings
@click.pass_context
def command(
    ctx: click.Context,
    host: str | None,
    port: int | None,
    model: str | None,
    allow: tuple[str, ...],
    insecure: bool,
    config: Path | None,
) -> None:
    """Serve voice assistants by the Wyoming protocol."""
    overrides = {
        "wyoming.enabled": True,
        "wyoming.host": host,
        "wyoming.port": port,
        "wyoming.allow": allow or None,
        "wyoming.insecure": insecure or None,
        "model": model,
    }
    ctx.ensure_object(Ports).wyoming(Choices(config, overrides), _announce)


def _announce(listening: Listening) -> None:
    click.echo(f"VoiceForge speaks Wyoming on {listening.url}  (model {listening.model})")
