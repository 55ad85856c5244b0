"""`voiceforge listen`: live captions of a microphone, a recording or standard input."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import click

from voiceforge.cli.common_options import KEY_VARIABLE, RawFormatType, can_be_quiet, reads_settings
from voiceforge.cli.live_options import polishes, says_how
from voiceforge.cli.ports import Choices, Ports
from voiceforge.errors import InvalidRequest
from voiceforge.speech.options import RawFormat

_EPILOG = """\b
Ctrl-C ends it. What was said goes to standard output, what is being said is shown below it.

\b
Examples:
  voiceforge listen
  voiceforge listen --device "USB" --times > minutes.txt
  voiceforge listen talk.mp3
  arecord -q -f S16_LE -r 16000 | voiceforge listen -
  voiceforge listen --server http://speech.example:8000
"""


@click.command(epilog=_EPILOG)
@click.argument("recording", required=False, metavar="[FILE|-]")
@click.option("--device", metavar="NAME|NUMBER", help="The microphone; otherwise the system's default.")
@click.option("--raw", type=RawFormatType(), help="What standard input holds; otherwise s16le:16000:1.")
@says_how
@polishes
@click.option("--server", metavar="URL", help="Have a server recognise it; key: VOICEFORGE_API_KEY.")
@can_be_quiet
@reads_settings
@click.pass_context
def command(
    ctx: click.Context,
    recording: str | None,
    device: str | None,
    raw: RawFormat | None,
    model: str | None,
    language: str | None,
    prompt: str | None,
    keyterms: tuple[str, ...],
    endpointing_ms: int,
    interim: bool,
    times: bool,
    as_json: bool,
    polish: bool,
    server: str | None,
    quiet: bool,
    config: Path | None,
) -> None:
    """Show live captions: of the microphone, of a recording as it plays, or of raw audio on standard input
    (-)."""
    if raw is not None and recording != "-":
        raise click.UsageError("--raw describes standard input (-)")
    if device is not None and recording is not None:
        raise click.UsageError("--device names a microphone; leave the file out")

    if polish and server is None:
        raise click.UsageError("--polish needs a server that keeps it: name one with --server")

    from voiceforge.cli import event_loop
    from voiceforge.cli.live_options import show_all
    from voiceforge.cli.live_remote import remote_captions, wishes
    from voiceforge.cli.live_sources import microphone, played, standard_input, until_interrupted
    from voiceforge.services.live_audio import LIVE_FORMAT
    from voiceforge.speech.options import StreamOptions

    audio: AsyncIterator[bytes]
    if recording is None:
        audio = microphone(device)
    elif recording == "-":
        audio = standard_input()
    else:
        if not Path(recording).is_file():
            raise click.UsageError(f"{recording}: there is no such file")
        audio = played(Path(recording), realtime=True)
    audio = until_interrupted(audio)
    audio_format = raw or LIVE_FORMAT
    options = StreamOptions(
        language=language,
        prompt=prompt,
        keyterms=keyterms,
        endpointing_ms=endpointing_ms,
        interim=interim,
    )
    if server is not None:
        asked = wishes(options, audio_format, model, polish=polish)
        told = remote_captions(server, os.environ.get(KEY_VARIABLE), asked, audio)
        event_loop.run(show_all(told, as_json=as_json, times=times))
        return

    from voiceforge.cli.live_local import local_captions
    from voiceforge.services.streams import StreamRequest

    with ctx.ensure_object(Ports).workshop(Choices(config, quiet=quiet, live=True)) as workshop:
        streams = workshop.services.streams
        if streams is None:
            raise InvalidRequest("live streams are switched off in the settings", field="features.streams")
        request = StreamRequest(options=options, audio=audio_format, model=model)
        event_loop.run(show_all(local_captions(streams, request, audio), as_json=as_json, times=times))
