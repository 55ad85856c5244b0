"""`voiceforge serve`: the HTTP server in the foreground."""

from __future__ import annotations

from pathlib import Path

import click

from voiceforge.cli.common_options import reads_settings
from voiceforge.cli.ports import Choices, Listening, Ports

_EPILOG = """\b
Stops on Ctrl-C or SIGTERM: /health/ready turns 503, nothing new is accepted,
requests in progress are finished within server.grace_s. A second signal
stops at once.

\b
The API key comes from VOICEFORGE_API_KEY or the settings file, never from
the command line, where other users of the machine could read it.

\b
Examples:
  voiceforge serve
  VOICEFORGE_API_KEY=… voiceforge serve --host 0.0.0.0 --port 9000
  curl -F file=@talk.mp3 http://127.0.0.1:8000/v1/transcriptions
"""


@click.command(epilog=_EPILOG)
@click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port; 0 picks a free one.  [default: 8000]")
@click.option("--model", metavar="ID", help="The default model; it is loaded at start.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Processes that answer HTTP, models shared.  [default: 1]",
)
@click.option("--insecure", is_flag=True, help="Listen beyond this machine without an API key.")
@reads_settings
@click.pass_context
def command(
    ctx: click.Context,
    host: str | None,
    port: int | None,
    model: str | None,
    workers: int | None,
    insecure: bool,
    config: Path | None,
) -> None:
    """Serve the native and the OpenAI-compatible API.

    Options given here win over the environment and the settings file.
    """
    overrides = {
        "server.host": host,
        "server.port": port,
        "server.workers": workers,
        "server.insecure": insecure or None,
        "model": model,
    }
    ctx.ensure_object(Ports).serve(Choices(config, overrides), _announce)


def _announce(listening: Listening) -> None:
    key = "API key required" if listening.protected else "no API key"
    click.echo(
        f"VoiceForge listens on {listening.url}  (docs {listening.url}/docs, model {listening.model}, {key})"
    )
    if listening.wyoming is not None:
        click.echo(f"Wyoming on {listening.wyoming}")
