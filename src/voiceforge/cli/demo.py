"""`voiceforge demo`: real speech to text with what is installed, nothing to set up."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from voiceforge.cli.common_options import can_be_quiet, reads_settings
from voiceforge.cli.ports import Choices, Ports, Workshop
from voiceforge.cli.words import duration_text, speed_text
from voiceforge.errors import Unavailable
from voiceforge.services.access import OWNER

if TYPE_CHECKING:
    from voiceforge.speech.transcript.types import Transcript

_WIDTH = 88
_NEXT = """\
What next:
  voiceforge transcribe FILE                your own recording; --help shows formats and options
  voiceforge serve                          the API on http://127.0.0.1:8000, docs under /docs
    curl -F file=@FILE http://127.0.0.1:8000/v1/transcriptions
    OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none").audio.transcriptions.create(…)
  voiceforge models list                    other languages and larger models
  voiceforge doctor                         what this machine can do
"""


@click.command()
@can_be_quiet
@reads_settings
@click.pass_context
def command(ctx: click.Context, quiet: bool, config: Path | None) -> None:
    """Transcribe real recordings with the default model, and show how fast it is."""
    from voiceforge.cli import event_loop

    with ctx.ensure_object(Ports).workshop(Choices(config, quiet=quiet)) as workshop:
        event_loop.run(_show(workshop))
    if not quiet:
        click.echo(_NEXT, nl=False)


async def _show(workshop: Workshop) -> None:
    import asyncio

    from voiceforge.services.samples import sample_recordings
    from voiceforge.services.transcriptions import TranscribeRequest

    recordings = sample_recordings()
    if not recordings:
        raise Unavailable("the sample recordings are missing: pip install --force-reinstall moonshine-voice")
    transcriptions = workshop.services.transcriptions
    model_id = transcriptions.check(OWNER, None, workshop.defaults)
    started = time.perf_counter()
    await asyncio.to_thread(transcriptions.preload, model_id)
    click.echo(f"{model_id} loaded in {time.perf_counter() - started:.2f} s")
    for path in recordings:
        started = time.perf_counter()
        transcript = await transcriptions.transcribe(TranscribeRequest(path, workshop.defaults))
        _print(path, transcript, time.perf_counter() - started)


def _print(path: Path, transcript: Transcript, seconds: float) -> None:
    click.echo(f"\n{path.name}, {duration_text(transcript.duration)} of speech")
    click.echo(click.wrap_text(transcript.text, _WIDTH, "  ", "  "))
    click.echo(f"  in {seconds:.2f} s: {speed_text(transcript.duration, seconds)} as fast as it was spoken\n")
