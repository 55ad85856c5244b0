"""`voiceforge bench`: models over recordings whose text is known; how well, how fast, at what cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from voiceforge.cli.common_options import can_be_quiet, reads_settings
from voiceforge.cli.complaints import EXIT_FAILED, complain
from voiceforge.cli.ports import Choices, Ports, Workshop
from voiceforge.cli.progress import Display, display
from voiceforge.cli.tables import print_table
from voiceforge.cli.words import bytes_text, duration_text

if TYPE_CHECKING:
    from voiceforge.services.bench import BenchProgress, BenchReport
    from voiceforge.speech.options import RawFormat
    from voiceforge.speech.transcript.types import Transcript

_EPILOG = """\b
The manifest has one JSON object per line: "audio" (path from the manifest's
folder), "text" (what is said; "" for nothing), and optionally "language",
"kind", "duration" and "raw".

\b
Exit code: 1 if every recording of some model failed, 0 otherwise.

\b
Examples:
  voiceforge bench recordings.jsonl
  voiceforge bench recordings.jsonl --model moonshine-tiny-en --model whisper-small \\
    --json report.json --plot report.png
"""


@click.command(epilog=_EPILOG)
@click.argument("manifest", type=click.Path(path_type=Path), metavar="MANIFEST.jsonl")
@click.option(
    "--model", "models", multiple=True, metavar="ID", help="May be repeated; otherwise the default model."
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the whole report."
)
@click.option(
    "--plot", "plot_file", type=click.Path(path_type=Path, dir_okay=False), help="Draw it: png, svg or pdf."
)
@click.option(
    "--kind", "kinds", multiple=True, metavar="KIND", help="Only recordings of this kind; may be repeated."
)
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="Only the first N recordings (of these kinds)."
)
@click.option(
    "--concurrency", type=click.IntRange(1, 64), default=1, show_default=True, help="Recordings at a time."
)
@click.option(
    "--normaliser",
    "--normalizer",
    "normaliser",
    default="whisper",
    show_default=True,
    metavar="NAME",
    help="How texts are made comparable: whisper, basic or none.",
)
@click.option("--words", is_flag=True, help="With word times, which take time of their own.")
@can_be_quiet
@reads_settings
@click.pass_context
def command(
    ctx: click.Context,
    manifest: Path,
    models: tuple[str, ...],
    json_file: Path | None,
    plot_file: Path | None,
    kinds: tuple[str, ...],
    limit: int | None,
    concurrency: int,
    normaliser: str,
    words: bool,
    quiet: bool,
    config: Path | None,
) -> None:
    """Measure models: word and character error rate, speed, latency, memory."""
    from voiceforge.cli import event_loop
    from voiceforge.services.bench import Bench, ProcessMeter

    with (
        ctx.ensure_object(Ports).workshop(Choices(config, quiet=quiet)) as workshop,
        display(quiet=quiet) as screen,
    ):
        known = workshop.services.models
        chosen = [known.require_installed(name) for name in models or (None,)]
        bench = Bench(_Transcriber(workshop, words), ProcessMeter())
        report = event_loop.run(
            bench.run(
                manifest,
                chosen,
                normaliser=normaliser,
                concurrency=concurrency,
                kinds=kinds,
                limit=limit,
                on_progress=_Follower(screen, quiet),
            )
        )
    if json_file is not None:
        bench.write_json(report, json_file)
    _print(report)
    if plot_file is not None:
        bench.write_picture(report, plot_file)
    if any(all(scored.result.error_code for scored in model.files) for model in report.models):
        ctx.exit(EXIT_FAILED)


class _Transcriber:
    def __init__(self, workshop: Workshop, words: bool) -> None:
        self._transcriptions = workshop.services.transcriptions
        self._options = replace(workshop.defaults, words=words)

    async def __call__(
        self, path: Path, raw: RawFormat | None, language: str | None, model: str
    ) -> Transcript:
        from voiceforge.services.transcriptions import TranscribeRequest

        options = replace(self._options, raw=raw, language=language)
        return await self._transcriptions.transcribe(TranscribeRequest(path, options, model))


class _Follower:
    """Draws the bar, and names what failed."""

    def __init__(self, screen: Display, quiet: bool) -> None:
        self._screen = screen
        self._quiet = quiet
        self._bar = screen.bar("bench", "files")

    def __call__(self, progress: BenchProgress) -> None:
        self._bar.update(progress.done, progress.total)
        if progress.error_code is not None and not self._quiet:
            with self._screen.aside():
                complain(f"{progress.file}: {progress.error_code} ({progress.model})")


def _print(report: BenchReport) -> None:
    rows: list[Sequence[str]] = []
    for model in report.models:
        groups = (
            [*model.by_kind.items(), ("total", model.totals)]
            if len(model.by_kind) > 1
            else [("total", model.totals)]
        )
        for name, totals in groups:
            rows.append(
                (
                    model.model,
                    name,
                    str(totals.files),
                    duration_text(totals.audio_s),
                    _percent(totals.score.words.rate),
                    _percent(totals.score.characters.rate),
                    str(totals.invented_words) if totals.silent_files else "",
                    str(sum(totals.failed.values())),
                )
            )
    print_table(
        ("model", "kind", "files", "audio", "WER", "CER", "invented", "failed"),
        rows,
        right=frozenset(range(2, 8)),
    )
    click.echo()
    print_table(
        ("model", "load", "time", "RTFx", "RTFx/CPU", "p50", "p95", "p99", "memory"),
        [
            (
                model.model,
                f"{model.run.warm_up_s:.2f} s",
                duration_text(model.run.elapsed_s),
                _number(model.rtfx_wall),
                _number(model.rtfx_cpu),
                *(_seconds(model.latency_s.get(percent)) for percent in (50, 95, 99)),
                bytes_text(model.run.peak_rss_bytes),
            )
            for model in report.models
        ],
        right=frozenset(range(1, 9)),
    )
    click.echo(f"\n{report.manifest}, {report.normaliser} normaliser, {report.concurrency} at a time")


def _percent(rate: float | None) -> str:
    return "–" if rate is None else f"{100 * rate:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"
