"""`voiceforge transcribe`: parses the command line; `transcribe_run` does it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from voiceforge.cli.common_options import KEY_VARIABLE, RawFormatType, can_be_quiet, reads_settings
from voiceforge.cli.ports import Choices, Ports, Workshop
from voiceforge.speech.options import CHANNEL_MODES, TASKS, ChannelMode, RawFormat, Task

if TYPE_CHECKING:
    from voiceforge.cli.transcribe_run import Order

_EPILOG = """\b
Several inputs as txt are told apart by `==> name <==` lines (not with -q);
as json or verbose_json each becomes one line with its name under "file".
The subtitle and table formats need --output-dir then.

\b
Exit code: 0 all done, 1 some input failed, 2 wrong usage or settings.

\b
Examples:
  voiceforge transcribe meeting.mp4
  voiceforge transcribe call.wav --channels split --format json --words
  voiceforge transcribe lectures/ --format vtt --output-dir subtitles/
  voiceforge transcribe https://example.org/talk.mp3 --keyterm Kubernetes
  arecord -f S16_LE -r 16000 -d 5 | voiceforge transcribe -
  voiceforge transcribe - --raw mulaw:8000 < call.ulaw
  voiceforge transcribe talk.mp3 --server http://speech.example:8000
"""

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def _engine_options(command: Decorated) -> Decorated:
    """How it is recognised, for those who know what they do."""
    for option in reversed(
        (
            click.option("--temperature", type=click.FloatRange(0, 1), help="Sampling temperature."),
            click.option("--beam-size", type=click.IntRange(1, 20), help="Hypotheses kept while decoding."),
            click.option(
                "--vad-threshold",
                type=click.FloatRange(0, 1, min_open=True, max_open=True),
                help="Speech probability that counts as speech.",
            ),
            click.option("--no-normalize", is_flag=True, help="Do not raise quiet speech to full scale."),
            click.option(
                "--raw",
                type=RawFormatType(),
                help="Read headerless PCM: s16le, s32le, f32le, mulaw or alaw, such as mulaw:8000:1.",
            ),
            click.option(
                "--device", type=click.Choice(("auto", "cpu", "cuda")), help="Where the model runs."
            ),
            click.option(
                "--compute-type", metavar="TYPE", help="Numbers a Whisper model computes in, such as int8."
            ),
            click.option("--threads", type=click.IntRange(1, 1024), help="Processor cores to use."),
        )
    ):
        command = option(command)
    return command


@click.command(epilog=_EPILOG)
@click.argument("inputs", nargs=-1, required=True, metavar="FILE|FOLDER|URL|-...")
@click.option("--model", metavar="ID", help="Model; `voiceforge models list` shows them.")
@click.option("--language", metavar="CODE", help="Spoken language, such as en; otherwise detected.")
@click.option("--task", type=click.Choice(TASKS), default="transcribe", help="translate: into English.")
@click.option(
    "--format",
    "fmt",
    default="txt",
    show_default=True,
    metavar="NAME",
    help="txt, json, verbose_json, srt, vtt or tsv.",
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write one file per input there, and print a summary.",
)
@click.option(
    "--skip-existing", is_flag=True, help="With --output-dir: leave out what has its output already."
)
@click.option("--words", is_flag=True, help="Times for every word.")
@click.option(
    "--channels",
    type=click.Choice(CHANNEL_MODES),
    default="mix",
    help="split: each channel by itself, for calls with one speaker on each.",
)
@click.option("--prompt", metavar="TEXT", help="Text that sets the context and spelling.")
@click.option(
    "--keyterm", "keyterms", multiple=True, metavar="TERM", help="A name or term to expect; may be repeated."
)
@click.option(
    "--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Inputs worked on at a time."
)
@click.option(
    "--server", metavar="URL", help="Have a server do it, and keep nothing there; key: VOICEFORGE_API_KEY."
)
@_engine_options
@can_be_quiet
@reads_settings
@click.pass_context
def command(
    ctx: click.Context,
    inputs: tuple[str, ...],
    model: str | None,
    language: str | None,
    task: Task,
    fmt: str,
    output_dir: Path | None,
    skip_existing: bool,
    words: bool,
    channels: ChannelMode,
    prompt: str | None,
    keyterms: tuple[str, ...],
    jobs: int,
    server: str | None,
    temperature: float | None,
    beam_size: int | None,
    vad_threshold: float | None,
    no_normalize: bool,
    raw: RawFormat | None,
    device: str | None,
    compute_type: str | None,
    threads: int | None,
    quiet: bool,
    config: Path | None,
) -> None:
    """Turn recordings into text: files, whole folders, URLs, or standard input (-).

    Any audio or video format is read. The text goes to standard output, or into files with --output-dir.
    """
    if skip_existing and output_dir is None:
        raise click.UsageError("--skip-existing needs --output-dir")
    if inputs.count("-") > 1:
        raise click.UsageError("standard input can be read only once")
    here_only = {
        "--device": device,
        "--compute-type": compute_type,
        "--threads": threads,
        "--no-normalize": no_normalize or None,
    }
    if server is not None and (given := [name for name, value in here_only.items() if value is not None]):
        raise click.UsageError(f"{given[0]} is the server's own affair; leave it out with --server")

    from voiceforge.cli import event_loop, transcribe_run

    choices = Choices(
        config,
        {"engine.device": device, "engine.compute_type": compute_type, "engine.threads": threads},
        quiet=quiet,
    )
    with ctx.ensure_object(Ports).workshop(choices) as workshop:
        defaults = workshop.defaults
        options = replace(
            defaults,
            language=language,
            task=task,
            words=words,
            channels=channels,
            prompt=prompt,
            keyterms=keyterms,
            temperature=temperature,
            beam_size=beam_size,
            raw=raw,
            normalize_peak=defaults.normalize_peak and not no_normalize,
            vad=defaults.vad if vad_threshold is None else replace(defaults.vad, threshold=vad_threshold),
        )
        order = transcribe_run.Order(
            inputs=inputs,
            model=model,
            options=options,
            format=fmt,
            output_dir=output_dir,
            skip_existing=skip_existing,
            jobs=jobs,
            quiet=quiet,
        )
        if server is None:
            ctx.exit(event_loop.run(transcribe_run.carry_out(order, workshop, ctx)))
        fields = {
            "model": model,
            "language": language,
            "task": task,
            "words": words,
            "channels": channels,
            "prompt": prompt,
            "keyterm": list(keyterms) or None,
            "temperature": temperature,
            "beam_size": beam_size,
            "vad_threshold": vad_threshold,
            **(_raw_fields(raw) if raw is not None else {}),
        }
        wishes = {name: value for name, value in fields.items() if value is not None}
        ctx.exit(event_loop.run(_through(server, wishes, order, workshop, ctx)))


async def _through(
    server: str, fields: dict[str, Any], order: Order, workshop: Workshop, ctx: click.Context
) -> int:
    from voiceforge.cli import transcribe_run
    from voiceforge.cli.server_client import ServerClient
    from voiceforge.cli.transcribe_remote import RemoteMaker

    async with ServerClient(server, os.environ.get(KEY_VARIABLE)) as client:
        return await transcribe_run.carry_out(order, workshop, ctx, RemoteMaker(client, fields))


def _raw_fields(raw: RawFormat) -> dict[str, Any]:
    return {
        "encoding": raw.encoding,
        "sample_rate": raw.sample_rate_hz,
        "input_channels": raw.channels,
    }
