"""Running models over a manifest and reporting how well and how fast they did.

Gets a way to transcribe and a meter for this process's resources; knows neither engines nor queues.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from voiceforge.errors import (
    Cancelled,
    ConfigurationError,
    DependencyMissing,
    InvalidRequest,
    ModelNotFound,
    ModelNotInstalled,
    ShuttingDown,
    VoiceForgeError,
)
from voiceforge.speech.options import RawFormat
from voiceforge.speech.training.bench_picture import draw
from voiceforge.speech.training.bench_report import (
    BenchReport,
    FileResult,
    ModelRun,
    make_report,
    report_document,
)
from voiceforge.speech.training.evaluation import NORMALISERS, Scorer
from voiceforge.speech.training.manifest import ManifestEntry, read_manifest
from voiceforge.speech.transcript.types import Transcript

__all__ = ["NORMALISERS", "Bench", "BenchProgress", "BenchReport", "ProcessMeter", "ResourceMeter"]

Transcribe = Callable[[Path, RawFormat | None, str | None, str], Awaitable[Transcript]]
"""(path, how to read it if it has no header, language or None, model) -> transcript."""

# These say something about the model or this process, not about a recording: no use going on.
_FATAL = (ModelNotFound, ModelNotInstalled, DependencyMissing, ConfigurationError, ShuttingDown, Cancelled)

_MEMORY_SAMPLE_S = 0.1
# Shorter clips may be refused, and then would not load the model.
_SHORTEST_WARM_UP_S = 0.5


class ResourceMeter(Protocol):
    """What the work costs; the process and its children together."""

    def cpu_s(self) -> float:
        """CPU seconds spent so far."""
        ...

    def rss_bytes(self) -> int:
        """Memory held now."""
        ...


class ProcessMeter:
    """This process and what it started."""

    def __init__(self) -> None:
        import psutil

        self._gone = psutil.Error
        self._process = psutil.Process()

    def cpu_s(self) -> float:
        own = self._process.cpu_times()
        total = own.user + own.system + own.children_user + own.children_system
        for child in self._process.children(recursive=True):
            with contextlib.suppress(self._gone):
                spent = child.cpu_times()
                total += spent.user + spent.system
        return float(total)

    def rss_bytes(self) -> int:
        total = self._process.memory_info().rss
        for child in self._process.children(recursive=True):
            with contextlib.suppress(self._gone):
                total += child.memory_info().rss
        return int(total)


@dataclass(frozen=True, slots=True)
class BenchProgress:
    """`done` of `total` results are in, over all models; the last is `file` by `model`.
    error_code: how it failed, if it did."""

    model: str
    file: str
    done: int
    total: int
    error_code: str | None = None


class Bench:
    """Compares models on recordings whose text is known."""

    def __init__(
        self,
        transcribe: Transcribe,
        meter: ResourceMeter,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._transcribe = transcribe
        self._meter = meter
        self._clock = clock

    async def run(
        self,
        manifest: Path,
        models: Sequence[str],
        *,
        normaliser: str = "whisper",
        concurrency: int = 1,
        kinds: Collection[str] = (),
        limit: int | None = None,
        on_progress: Callable[[BenchProgress], None] | None = None,
    ) -> BenchReport:
        """Every model over every recording, one model after the other.

        A recording that fails is a row with its error code. Each model is called once, unmeasured,
        before its measured files, so that loading it is not counted as recognition.

        Args:
            concurrency: recordings under way at once; CPU time per file is known only at 1.
            kinds: only recordings of these kinds; empty: all.
            limit: only the first so many of them.

        Raises:
            InvalidRequest: the manifest, `models` or `concurrency` cannot be used.
            UnsupportedOption: unknown normaliser.
            DependencyMissing: scoring is not installed (before anything has run).
            ModelNotFound, ModelNotInstalled and others that concern a model as a whole.
        """
        if not models:
            raise InvalidRequest("no model to measure", field="model")
        if concurrency < 1:
            raise InvalidRequest("concurrency must be at least 1", field="concurrency")
        scorer = Scorer(normaliser)
        entries = _chosen(await asyncio.to_thread(read_manifest, manifest), kinds, limit)
        names = list(dict.fromkeys(models))
        report_done = _Counter(len(entries) * len(names), on_progress)
        runs = [await self._run_model(model, entries, concurrency, report_done) for model in names]
        return await asyncio.to_thread(
            make_report,
            runs,
            scorer,
            manifest=manifest.name,
            normaliser=normaliser,
            concurrency=concurrency,
        )

    def write_json(self, report: BenchReport, path: Path) -> None:
        """Raises:
        InvalidRequest: the file cannot be written.
        """
        text = json.dumps(report_document(report), ensure_ascii=False, indent=2, allow_nan=False)
        try:
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise InvalidRequest(f"cannot write the report: {error.strerror}", field="json") from error

    def write_picture(self, report: BenchReport, path: Path) -> None:
        """Raises:
        InvalidRequest: the file cannot be written or its ending is not png, svg or pdf.
        DependencyMissing: matplotlib is not installed.
        """
        draw(report, path)

    async def _run_model(
        self, model: str, entries: Sequence[ManifestEntry], concurrency: int, report_done: _Counter
    ) -> ModelRun:
        warm_up_s = (await self._measure(model, _warm_up_entry(entries), cpu=False)).wall_s
        results: list[FileResult | None] = [None] * len(entries)
        waiting = iter(enumerate(entries))

        async def work() -> None:
            for index, entry in waiting:
                result = await self._measure(model, entry, cpu=concurrency == 1)
                results[index] = result
                report_done(result)

        async with self._peak_memory() as peak:
            cpu_before, began = self._meter.cpu_s(), self._clock()
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(concurrency, len(entries))):
                        group.create_task(work())
            except* VoiceForgeError as failures:
                raise _first(failures) from None
            elapsed_s, cpu_s = self._clock() - began, self._meter.cpu_s() - cpu_before
        files = tuple(result for result in results if result is not None)
        return ModelRun(model, files, elapsed_s, cpu_s, max(peak), warm_up_s)

    async def _measure(self, model: str, entry: ManifestEntry, *, cpu: bool) -> FileResult:
        text, duration_s, error = "", 0.0, None
        cpu_before, began = self._meter.cpu_s() if cpu else 0.0, self._clock()
        try:
            language = None if entry.language is None or "+" in entry.language else entry.language
            transcript = await self._transcribe(entry.audio, entry.raw, language, model)
            text, duration_s = transcript.text, transcript.duration
        except _FATAL:
            raise
        except VoiceForgeError as refused:
            error = (refused.code, refused.message)
        except Exception as broken:
            # A defect on one file must not cost the results of all others; the report shows it.
            error = (VoiceForgeError.code, type(broken).__name__)
        wall_s = self._clock() - began
        return FileResult(
            model=model,
            file=entry.name,
            kind=entry.kind,
            duration_s=duration_s,
            wall_s=wall_s,
            cpu_s=self._meter.cpu_s() - cpu_before if cpu else None,
            text=text,
            reference=entry.text,
            language=entry.language,
            error_code=error[0] if error else None,
            error_message=error[1] if error else None,
        )

    @contextlib.asynccontextmanager
    async def _peak_memory(self) -> AsyncIterator[list[int]]:
        """Samples of memory while the block runs, the first at its start and the last at its end."""
        samples = [self._meter.rss_bytes()]

        async def sample() -> None:
            while True:
                await asyncio.sleep(_MEMORY_SAMPLE_S)
                samples.append(self._meter.rss_bytes())

        sampling = asyncio.create_task(sample())
        try:
            yield samples
        finally:
            samples.append(self._meter.rss_bytes())
            sampling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sampling


class _Counter:
    def __init__(self, total: int, on_progress: Callable[[BenchProgress], None] | None) -> None:
        self._total = total
        self._done = 0
        self._on_progress = on_progress

    def __call__(self, result: FileResult) -> None:
        self._done += 1
        if self._on_progress is not None:
            self._on_progress(
                BenchProgress(result.model, result.file, self._done, self._total, result.error_code)
            )


def _chosen(
    entries: Sequence[ManifestEntry], kinds: Collection[str], limit: int | None
) -> Sequence[ManifestEntry]:
    known = sorted({entry.kind for entry in entries})
    if unknown := [kind for kind in kinds if kind not in known]:
        raise InvalidRequest(f"no recording is of kind {unknown[0]!r}", field="kind", choices=known)
    return [entry for entry in entries if not kinds or entry.kind in kinds][:limit]


def _warm_up_entry(entries: Sequence[ManifestEntry]) -> ManifestEntry:
    """The shortest recording that is sure to reach the engine; the first where lengths are not known."""
    fit = [e for e in entries if e.text and e.duration is not None and e.duration >= _SHORTEST_WARM_UP_S]
    return min(fit, key=lambda e: e.duration or 0.0, default=entries[0])


def _first(failures: BaseExceptionGroup[VoiceForgeError]) -> VoiceForgeError:
    leaf: BaseException = failures
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    assert isinstance(leaf, VoiceForgeError)
    return leaf
