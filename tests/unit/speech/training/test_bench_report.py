"""From results per file to totals, JSON and a picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voiceforge.errors import DependencyMissing, InvalidRequest
from voiceforge.speech.training.bench_picture import draw
from voiceforge.speech.training.bench_report import (
    BenchReport,
    FileResult,
    ModelRun,
    make_report,
    percentile,
    report_document,
)
from voiceforge.speech.training.evaluation import ErrorCounts, Scorer


def result(
    text: str,
    reference: str | None,
    *,
    kind: str = "speech",
    language: str | None = "en",
    wall_s: float = 0.1,
    error: str | None = None,
    model: str = "small",
) -> FileResult:
    return FileResult(
        model=model,
        file="a.wav",
        kind=kind,
        duration_s=0.0 if error else 10.0,
        wall_s=wall_s,
        cpu_s=0.2,
        text=text,
        reference=reference,
        language=language,
        error_code=error,
        error_message="It broke." if error else None,
    )


FILES = (
    result("we went home early", "We went home, early.", wall_s=0.1),
    result("good", "good night", kind="noisy", wall_s=0.2),
    result("thank you", "", kind="noise", language=None, wall_s=0.3),
    result("who knows", None, kind="meeting", wall_s=0.4),
    result("", "uno dos", language="es", error="unsupported_option", wall_s=0.001),
    result("", "broken words", kind="broken", error="audio_unreadable", wall_s=0.001),
    result("", "", kind="broken", language=None, error="audio_empty", wall_s=0.001),
)


def report(*runs: ModelRun) -> BenchReport:
    return make_report(runs, Scorer(), manifest="m.jsonl", normaliser="whisper", concurrency=1)


def run(files: tuple[FileResult, ...] = FILES, model: str = "small") -> ModelRun:
    return ModelRun(model, files, elapsed_s=2.0, cpu_s=4.0, peak_rss_bytes=300 * 2**20, warm_up_s=1.5)


def test_totals_sum_over_scored_files_only() -> None:
    totals = report(run()).models[0].totals
    assert (totals.files, totals.scored_files, totals.silent_files) == (7, 5, 2)
    # 4 right, 1 missing, 2 invented, 2 lost with the unreadable file; Spanish was not scored.
    assert totals.score.words == ErrorCounts(reference=8, deletions=3, insertions=2)
    assert totals.invented_words == 2
    assert totals.failed == {"audio_empty": 1, "audio_unreadable": 1, "unsupported_option": 1}


def test_speed_and_latency_come_from_files_that_gave_a_result() -> None:
    model = report(run()).models[0]
    assert model.totals.audio_s == 40.0
    assert (model.rtfx_wall, model.rtfx_cpu) == (20.0, 10.0)
    assert model.latency_s[50] == pytest.approx(0.25)
    assert model.latency_s[99] == pytest.approx(0.397)


def test_groups_by_kind_and_language() -> None:
    model = report(run()).models[0]
    assert set(model.by_kind) == {"speech", "noisy", "noise", "meeting", "broken"}
    assert model.by_kind["noisy"].score.words.rate == 0.5
    assert model.by_kind["noise"].score.words.rate is None
    assert model.by_kind["noise"].invented_words == 2
    assert model.by_language["es"].scored_files == 0
    assert set(model.by_language) == {"en", "es", "none"}


def test_a_model_that_fails_on_everything_has_no_speed() -> None:
    model = report(run((result("", "a b", error="engine_failed"),))).models[0]
    assert model.totals.score.words.rate == 1.0
    assert model.latency_s == {}
    assert model.rtfx_wall == 0.0


def test_the_document_is_json_with_these_names() -> None:
    document = json.loads(json.dumps(report_document(report(run(), run(model="large"))), allow_nan=False))
    assert [model["model"] for model in document["models"]] == ["small", "large"]
    totals = document["models"][0]["totals"]
    assert totals["wer"] == 0.625
    assert totals["latency_s"].keys() == {"p50", "p95", "p99"}
    assert totals["peak_rss_bytes"] == 300 * 2**20
    assert totals["rtfx_cpu"] == 10.0
    assert document["models"][0]["by_kind"]["noise"]["wer"] is None
    rows = document["models"][0]["files"]
    assert rows[0]["wer"] == 0.0
    assert "error" not in rows[0]
    assert rows[3]["wer"] is None
    assert rows[5]["error"] == {"code": "audio_unreadable", "message": "It broke."}


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30), st.sampled_from([0, 50, 95, 99, 100]))
def test_percentiles_are_numpys(values: list[float], percent: int) -> None:
    assert percentile(values, percent) == pytest.approx(float(np.percentile(values, percent)))


def test_the_picture_is_written_in_the_format_of_its_name(tmp_path: Path) -> None:
    both = report(run(), run(model="large"))
    draw(both, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
    draw(both, tmp_path / "bench.SVG")
    assert "<svg" in (tmp_path / "bench.SVG").read_text(encoding="utf-8")


def test_a_picture_of_failures_alone_can_be_drawn(tmp_path: Path) -> None:
    draw(report(run((result("", None, error="engine_failed"),))), tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 0


def test_a_picture_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"\.png, \.svg or \.pdf"):
        draw(report(run()), tmp_path / "bench.txt")
    with pytest.raises(InvalidRequest, match="No such file"):
        draw(report(run()), tmp_path / "nowhere" / "bench.png")


def test_a_missing_matplotlib_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DependencyMissing, match=r"pip install 'voiceforge\[bench\]'"):
        draw(report(run()), tmp_path / "bench.png")
