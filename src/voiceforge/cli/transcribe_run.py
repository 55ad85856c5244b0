"""Transcribes what the command line names: several inputs at a time, results in the order given."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import click

from voiceforge.cli.complaints import EXIT_FAILED, complain, is_broken_pipe, line_about, print_traceback
from voiceforge.cli.event_loop import in_background
from voiceforge.cli.inputs import Recording, Unusable, find_recordings, spool_stdin
from voiceforge.cli.outputs import output_paths, write_whole
from voiceforge.cli.ports import Workshop
from voiceforge.cli.progress import Bar, Display, display
from voiceforge.cli.words import duration_text, plural, speed_text
from voiceforge.errors import ConfigurationError, UnsupportedOption
from voiceforge.services.access import OWNER
from voiceforge.services.recordings import Source, UrlSource
from voiceforge.services.transcriptions import TranscribeRequest, Transcriptions
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.transcript.events import Finished, Progress
from voiceforge.speech.transcript.types import Transcript

JSON_TYPE = "application/json"
# Formats that can be told apart when several follow each other; and the one that tells its own warnings.
_IN_A_ROW = frozenset({"txt", "json", "verbose_json"})
_TELLS_WARNINGS = "json"


@dataclass(frozen=True, slots=True)
class Order:
    """inputs: as the user gave them. model None: the default one."""

    inputs: tuple[str, ...]
    model: str | None
    options: TranscribeOptions
    format: str
    output_dir: Path | None = None
    skip_existing: bool = False
    jobs: int = 1
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """What became of one input. doubts: what the reader of plain text could not know otherwise."""

    body: str
    is_json: bool
    duration_s: float
    processing_s: float
    doubts: Sequence[str]


class Maker(Protocol):
    """Turns recordings into documents, here or elsewhere."""

    async def prepare(self, order: Order) -> None:
        """What all inputs need, once.

        Raises:
            VoiceForgeError: nothing can be done.
        """
        ...

    async def make(self, order: Order, source: Source, bar: Bar) -> Made: ...


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One of the two is there."""

    made: Made | None = None
    error: Exception | None = None


class LocalMaker:
    def __init__(self, transcriptions: Transcriptions) -> None:
        self._transcriptions = transcriptions

    async def prepare(self, order: Order) -> None:
        model_id = self._transcriptions.check(OWNER, order.model, order.options)
        # It loads beside the pipeline's own stages: both cores are idle now.
        await asyncio.gather(
            asyncio.to_thread(self._transcriptions.preload_stages),
            asyncio.to_thread(self._transcriptions.preload, model_id),
        )

    async def make(self, order: Order, source: Source, bar: Bar) -> Made:
        request = TranscribeRequest(source, order.options, order.model)
        async with contextlib.aclosing(self._transcriptions.events(request)) as events:
            async for event in events:
                if isinstance(event, Progress):
                    bar.update(event.processed_s, event.duration_s)
                elif isinstance(event, Finished):
                    return self._made(order, event.transcript)
        raise RuntimeError("the transcription ended without a result")

    def _made(self, order: Order, transcript: Transcript) -> Made:
        rendered = self._transcriptions.render(transcript, order.format, words=order.options.words)
        warnings = [warning.message for warning in transcript.warnings]
        gaps = [(gap.start, gap.end) for gap in transcript.coverage.gaps]
        return Made(
            rendered.body,
            rendered.media_type == JSON_TYPE,
            transcript.duration,
            transcript.processing_s,
            doubts_about(warnings, gaps),
        )


async def carry_out(
    order: Order, workshop: Workshop, context: click.Context, maker: Maker | None = None
) -> int:
    """Returns the exit code.

    Args:
        maker: None: the recordings are transcribed here.

    Raises:
        VoiceForgeError: nothing was tried, because the order itself cannot be met.
    """
    transcriptions = workshop.services.transcriptions
    if order.format not in transcriptions.formats():
        raise UnsupportedOption(
            f"unknown format {order.format!r}", field="format", choices=transcriptions.formats()
        )
    found = list(find_recordings(order.inputs))
    several = len(order.inputs) > 1 or any(
        isinstance(item, Recording) and item.folder is not None for item in found
    )
    if several and order.output_dir is None and order.format not in _IN_A_ROW:
        raise UnsupportedOption(f"several inputs as {order.format} need --output-dir")
    timed = transcriptions.timed_options(order.options, order.format)
    order = replace(order, options=replace(order.options, words=timed))
    maker = maker or LocalMaker(transcriptions)
    if isinstance(maker, LocalMaker):
        transcriptions.check(OWNER, order.model, order.options)

    run = _Run(order, transcriptions, maker, workshop.temp_dir, context, several)
    for item in found:
        if isinstance(item, Unusable):
            run.refuse(item.label, item.reason)
    pairs = run.targets([item for item in found if isinstance(item, Recording)])
    if any(not isinstance(recording.place, Path) for recording, _ in pairs):
        _make_temp_dir(workshop.temp_dir)
    if pairs:
        # A model that cannot be loaded is one error, not one per input.
        await maker.prepare(order)
        await run.work(pairs)
    return run.conclude()


def _make_temp_dir(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            [f"{folder} cannot be made: {error.strerror}; set VOICEFORGE_DATA_DIR to a folder of yours"]
        ) from error


class _Run:
    def __init__(
        self,
        order: Order,
        transcriptions: Transcriptions,
        maker: Maker,
        temp_dir: Path,
        context: click.Context,
        several: bool,
    ) -> None:
        self._order = order
        self._transcriptions = transcriptions
        self._maker = maker
        self._temp_dir = temp_dir
        self._context = context
        self._several = several
        self._started = time.perf_counter()
        self._failed = 0
        self._done = 0
        self._skipped = 0
        self._audio_s = 0.0

    def refuse(self, label: str, reason: str) -> None:
        self._failed += 1
        complain(f"{label}: {reason}")

    def targets(self, recordings: Sequence[Recording]) -> list[tuple[Recording, Path | None]]:
        """What is to be done, each with the file it goes into; None: standard output."""
        if self._order.output_dir is None:
            return [(recording, None) for recording in recordings]
        extension = self._transcriptions.extension(self._order.format)
        paths = output_paths(recordings, self._order.output_dir, extension)
        skipped = {path for path in paths if self._order.skip_existing and path.exists()}
        self._skipped = len(skipped)
        return [
            (recording, path)
            for recording, path in zip(recordings, paths, strict=True)
            if path not in skipped
        ]

    async def work(self, pairs: Sequence[tuple[Recording, Path | None]]) -> None:
        free = asyncio.Semaphore(self._order.jobs)
        with display(quiet=self._order.quiet) as screen:
            overall = screen.bar("all", "files") if len(pairs) > 1 else None
            tasks = [asyncio.create_task(self._one(recording, screen, free)) for recording, _ in pairs]
            try:
                for number, ((recording, target), task) in enumerate(zip(pairs, tasks, strict=True)):
                    if overall is not None:
                        overall.update(number, len(pairs))
                    outcome = await task
                    with screen.aside():
                        self._tell(recording, target, outcome)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, recording: Recording, screen: Display, free: asyncio.Semaphore) -> _Outcome:
        async with free:
            bar = screen.bar(recording.label, "audio")
            try:
                async with self._source(recording) as source:
                    return _Outcome(made=await self._maker.make(self._order, source, bar))
            except Exception as error:
                return _Outcome(error=error)
            finally:
                bar.close()

    @contextlib.asynccontextmanager
    async def _source(self, recording: Recording) -> AsyncIterator[Source]:
        if isinstance(recording.place, Path):
            yield recording.place
        elif recording.place is not None:
            yield UrlSource(recording.place)
        else:
            if sys.stdin.isatty():
                raise UnsupportedOption("nothing is piped into standard input")
            with TemporaryDirectory(dir=self._temp_dir, prefix="stdin-") as folder:
                target = Path(folder) / "audio"
                await in_background(spool_stdin, target)
                yield target

    def _tell(self, recording: Recording, target: Path | None, outcome: _Outcome) -> None:
        made, error = outcome.made, outcome.error
        if made is not None:
            try:
                self._deliver(recording, target, made)
            except Exception as failure:
                if is_broken_pipe(failure):
                    raise
                error = failure
        if error is not None:
            print_traceback(error, self._context)
            self.refuse(recording.label, line_about(error))

    def _deliver(self, recording: Recording, target: Path | None, made: Made) -> None:
        order = self._order
        if target is not None:
            write_whole(target, made.body)
            speed = speed_text(made.duration_s, made.processing_s)
            click.echo(f"{recording.label} -> {target}  {duration_text(made.duration_s)}  {speed}")
        elif self._several and made.is_json:
            line = {"file": recording.label, **json.loads(made.body)}
            click.echo(json.dumps(line, ensure_ascii=False))
        else:
            if self._several and not order.quiet:
                click.echo(("\n" if self._done else "") + f"==> {recording.label} <==")
            click.echo(made.body, nl=not made.body.endswith("\n"))
        self._done += 1
        self._audio_s += made.duration_s
        if not order.quiet and order.format != _TELLS_WARNINGS:
            for doubt in made.doubts:
                complain(f"{recording.label}: warning: {doubt}")

    def conclude(self) -> int:
        if self._order.output_dir is not None:
            elapsed = time.perf_counter() - self._started
            parts = [plural(self._done, "file") + " transcribed"]
            if self._skipped:
                parts.append(f"{self._skipped} skipped")
            if self._failed:
                parts.append(f"{self._failed} failed")
            summary = ", ".join(parts)
            if self._done:
                summary += f": {duration_text(self._audio_s)} of audio in {duration_text(elapsed)}"
                summary += f" ({speed_text(self._audio_s, elapsed)})"
            click.echo(summary)
        return EXIT_FAILED if self._failed else 0


def doubts_about(warnings: Sequence[str], gaps: Sequence[tuple[float, float]]) -> list[str]:
    """
    Args:
        gaps: speech without text, from and to, in seconds.
    """
    doubts = list(warnings)
    if gaps:
        where = ", ".join(f"{start:.1f}–{end:.1f} s" for start, end in gaps[:5])
        more = f" and {len(gaps) - 5} more" if len(gaps) > 5 else ""
        doubts.append(f"speech without text at {where}{more}")
    return doubts
