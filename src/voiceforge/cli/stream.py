"""`voiceforge stream`: sends a recording to a server as a live client would."""

from __future__ import annotations

import os
from pathlib import Path

import click

from voiceforge.cli.common_options import KEY_VARIABLE, asks_a_server
from voiceforge.cli.live_options import polishes, says_how

_EPILOG = """\b
Examples:
  voiceforge stream talk.mp3 --realtime
  voiceforge stream talk.mp3 --json | jq .
  voiceforge stream talk.mp3 --realtime --polish
"""


@click.command(epilog=_EPILOG)
@click.argument("recording", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE")
@click.option("--realtime", is_flag=True, help="As fast as it would be spoken; otherwise at once.")
@says_how
@polishes
@asks_a_server
def command(
    recording: Path,
    realtime: bool,
    model: str | None,
    language: str | None,
    prompt: str | None,
    keyterms: tuple[str, ...],
    endpointing_ms: int,
    interim: bool,
    times: bool,
    as_json: bool,
    polish: bool,
    server: str,
) -> None:
    """Play a recording to a server's live stream, and show what it makes of it: to try one out."""
    from voiceforge.cli import event_loop
    from voiceforge.cli.live_options import show_all
    from voiceforge.cli.live_remote import remote_captions, wishes
    from voiceforge.cli.live_sources import played
    from voiceforge.services.live_audio import LIVE_FORMAT
    from voiceforge.speech.options import StreamOptions

    options = StreamOptions(
        language=language,
        prompt=prompt,
        keyterms=keyterms,
        endpointing_ms=endpointing_ms,
        interim=interim,
    )
    told = remote_captions(
        server,
        os.environ.get(KEY_VARIABLE),
        wishes(options, LIVE_FORMAT, model, polish=polish),
        played(recording, realtime=realtime),
    )
    event_loop.run(show_all(told, as_json=as_json, times=times))
