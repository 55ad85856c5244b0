"""Results per file → totals per model: error rates, speed, latency, memory; and the report as JSON.

Knows nothing of how the files were transcribed, and no clock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from voiceforge.speech.training.evaluation import Score, Scorer

LATENCY_PERCENTILES = (50, 95, 99)

SKIPPED_CODES = frozenset({"unsupported_option"})
"""A model that does not know a clip's language is not scored on it; every other failure costs all of
the clip's words, so that no model gains by failing."""


@dataclass(frozen=True, slots=True)
class FileResult:
    """What one model made of one recording.

    duration_s: of the audio; 0 where it could not be read.
    wall_s: from the call to its end. cpu_s: of all threads, None where several files ran at once.
    text: "" after an error. reference: None is not scored.
    error: code and one sentence, where it failed.
    """

    model: str
    file: str
    kind: str
    duration_s: float
    wall_s: float
    cpu_s: float | None
    text: str
    reference: str | None
    language: str | None = None
    error_code: str | None = None
    error_message: str | None = None

    @property
    def scored(self) -> bool:
        return self.reference is not None and self.error_code not in SKIPPED_CODES


@dataclass(frozen=True, slots=True)
class ModelRun:
    """One model's way through the manifest.

    elapsed_s, cpu_s: first file begun to last file done, without loading the model; cpu_s of the process
    and its children. peak_rss_bytes: most memory of them meanwhile. warm_up_s: the call before the
    first measured one, in which the model is loaded.
    """

    model: str
    files: tuple[FileResult, ...]
    elapsed_s: float
    cpu_s: float
    peak_rss_bytes: int
    warm_up_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ScoredFile:
    """score: None where there was nothing to compare with."""

    result: FileResult
    score: Score | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over a group of files.

    score: errors of all scored files over the words of all references (not a mean of rates); words
        found where nothing is said count as insertions.
    invented_words: those words alone, over `silent_files` files.
    audio_s: of the files that gave a result.
    """

    files: int
    scored_files: int
    silent_files: int
    failed: Mapping[str, int]
    audio_s: float
    score: Score
    invented_words: int


@dataclass(frozen=True, slots=True)
class ModelReport:
    """rtfx_wall, rtfx_cpu: seconds of audio per second of the wall clock, and of CPU time.
    latency_s: percentile -> seconds per file that gave a result; empty where none did."""

    run: ModelRun
    files: tuple[ScoredFile, ...]
    totals: Totals
    by_kind: Mapping[str, Totals]
    by_language: Mapping[str, Totals]
    rtfx_wall: float | None
    rtfx_cpu: float | None
    latency_s: Mapping[int, float] = field(default_factory=dict)

    @property
    def model(self) -> str:
        return self.run.model


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Several models over one manifest. `normaliser`: how texts were made comparable."""

    manifest: str
    normaliser: str
    concurrency: int
    models: tuple[ModelReport, ...]


def make_report(
    runs: Sequence[ModelRun], scorer: Scorer, *, manifest: str, normaliser: str, concurrency: int
) -> BenchReport:
    """Score every file and sum up. Takes a millisecond or so per short clip."""
    models = tuple(_model_report(run, scorer) for run in runs)
    return BenchReport(manifest, normaliser, concurrency, models)


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the two nearest ranks, as numpy's default; `values` not empty."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def report_document(report: BenchReport) -> dict[str, Any]:
    """The report as plain values for JSON; rates as fractions, sizes in bytes, times in seconds."""
    return {
        "manifest": report.manifest,
        "normaliser": report.normaliser,
        "concurrency": report.concurrency,
        "models": [
            {
                "model": model.model,
                "totals": {
                    **_totals_document(model.totals),
                    "elapsed_s": round(model.run.elapsed_s, 3),
                    "cpu_s": round(model.run.cpu_s, 3),
                    "warm_up_s": round(model.run.warm_up_s, 3),
                    "rtfx_wall": _rounded(model.rtfx_wall, 2),
                    "rtfx_cpu": _rounded(model.rtfx_cpu, 2),
                    "latency_s": {f"p{p}": round(value, 4) for p, value in model.latency_s.items()},
                    "peak_rss_bytes": model.run.peak_rss_bytes,
                },
                "by_kind": {name: _totals_document(totals) for name, totals in model.by_kind.items()},
                "by_language": {name: _totals_document(totals) for name, totals in model.by_language.items()},
                "files": [_file_document(scored) for scored in model.files],
            }
            for model in report.models
        ],
    }


def _model_report(run: ModelRun, scorer: Scorer) -> ModelReport:
    files = tuple(
        ScoredFile(f, scorer.score(f.reference or "", f.text, f.language) if f.scored else None)
        for f in run.files
    )
    totals = _sum(files)
    latencies = [f.wall_s for f in run.files if f.error_code is None]
    return ModelReport(
        run=run,
        files=files,
        totals=totals,
        by_kind=_grouped(files, lambda f: f.kind),
        by_language=_grouped(files, lambda f: f.language or "none"),
        rtfx_wall=totals.audio_s / run.elapsed_s if run.elapsed_s > 0 else None,
        rtfx_cpu=totals.audio_s / run.cpu_s if run.cpu_s > 0 else None,
        latency_s={p: percentile(latencies, p) for p in LATENCY_PERCENTILES} if latencies else {},
    )


def _grouped(files: Sequence[ScoredFile], key: Callable[[FileResult], str]) -> dict[str, Totals]:
    groups: dict[str, list[ScoredFile]] = {}
    for scored in files:
        groups.setdefault(key(scored.result), []).append(scored)
    return {name: _sum(members) for name, members in sorted(groups.items())}


def _sum(files: Sequence[ScoredFile]) -> Totals:
    scores = [(scored.result, scored.score) for scored in files if scored.score is not None]
    silent = [score for result, score in scores if result.reference == ""]
    return Totals(
        files=len(files),
        scored_files=len(scores),
        silent_files=len(silent),
        failed=dict(sorted(Counter(f.result.error_code for f in files if f.result.error_code).items())),
        audio_s=sum(f.result.duration_s for f in files if f.result.error_code is None),
        score=sum((score for _, score in scores), Score()),
        invented_words=sum(score.words.insertions for score in silent),
    )


def _totals_document(totals: Totals) -> dict[str, Any]:
    words, characters = totals.score.words, totals.score.characters
    return {
        "files": totals.files,
        "scored_files": totals.scored_files,
        "silent_files": totals.silent_files,
        "failed": dict(totals.failed),
        "audio_s": round(totals.audio_s, 3),
        "wer": _rounded(words.rate, 5),
        "cer": _rounded(characters.rate, 5),
        "words": words.reference,
        "substitutions": words.substitutions,
        "deletions": words.deletions,
        "insertions": words.insertions,
        "invented_words": totals.invented_words,
    }


def _file_document(scored: ScoredFile) -> dict[str, Any]:
    result, score = scored.result, scored.score
    document: dict[str, Any] = {
        "file": result.file,
        "kind": result.kind,
        "language": result.language,
        "duration_s": round(result.duration_s, 3),
        "wall_s": round(result.wall_s, 4),
        "cpu_s": _rounded(result.cpu_s, 4),
        "text": result.text,
        "reference": result.reference,
        "wer": _rounded(score.words.rate, 5) if score else None,
        "cer": _rounded(score.characters.rate, 5) if score else None,
        "words": score.words.reference if score else None,
        "substitutions": score.words.substitutions if score else None,
        "deletions": score.words.deletions if score else None,
        "insertions": score.words.insertions if score else None,
    }
    if result.error_code is not None:
        document["error"] = {"code": result.error_code, "message": result.error_message}
    return document


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
