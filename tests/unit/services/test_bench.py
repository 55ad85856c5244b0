"""Running models over a manifest, with a scripted transcriber and a scripted clock."""

from __future__ import annotations

import asyncio
import json
import mmap
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from voiceforge.errors import (
    DependencyMissing,
    InvalidRequest,
    ModelNotFound,
    UnreadableAudio,
    UnsupportedOption,
    VoiceForgeError,
)
from voiceforge.services.bench import Bench, BenchProgress, ProcessMeter
from voiceforge.speech.options import RawFormat
from voiceforge.speech.transcript import Coverage, Language, ModelRef, Transcript


class Costs:
    """Clock and meter in one: time passes only while something is transcribed."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.spent_s = 7.0
        self.memory_bytes = 1000

    def clock(self) -> float:
        return self.now_s

    def cpu_s(self) -> float:
        return self.spent_s

    def rss_bytes(self) -> int:
        return self.memory_bytes


class Scripted:
    """Says what it is told to for each file name; a VoiceForgeError is raised."""

    def __init__(self, costs: Costs, says: dict[str, str | Exception]) -> None:
        self._costs = costs
        self._says = says
        self.calls: list[tuple[str, RawFormat | None, str | None, str]] = []
        self.running = 0
        self.most_running = 0

    async def __call__(
        self, path: Path, raw: RawFormat | None, language: str | None, model: str
    ) -> Transcript:
        self.calls.append((path.name, raw, language, model))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        self._costs.now_s += 0.5
        self._costs.spent_s += 1.0
        self._costs.memory_bytes = 5000
        answer = self._says[path.name]
        if isinstance(answer, Exception):
            raise answer
        return Transcript(
            text=answer,
            segments=(),
            duration=10.0,
            language=Language("en", 1.0),
            coverage=Coverage(0.0, 0.0),
            model=ModelRef(model, "1"),
        )


ROWS: tuple[dict[str, object], ...] = (
    {"audio": "good.wav", "text": "good night", "language": "en", "duration": 10.0},
    {"audio": "call.ulaw", "text": "yes", "language": "en", "raw": {"encoding": "mulaw", "rate": 8000}},
    {"audio": "mixed.wav", "text": "hello hola", "language": "en+es", "duration": 10.0},
    {"audio": "text.wav", "text": "", "kind": "broken"},
)
SAYS: dict[str, str | Exception] = {
    "good.wav": "Good night.",
    "call.ulaw": "no",
    "mixed.wav": "hello",
    "text.wav": UnreadableAudio("This is text."),
}


@pytest.fixture
def costs() -> Costs:
    return Costs()


def manifest(folder: Path, rows: Sequence[dict[str, object]] = ROWS) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


async def test_every_file_is_measured_and_scored(tmp_path: Path, costs: Costs) -> None:
    transcriber = Scripted(costs, SAYS)
    report = await Bench(transcriber, costs, costs.clock).run(manifest(tmp_path), ["small"])
    (model,) = report.models
    assert [f.result.file for f in model.files] == ["good.wav", "call.ulaw", "mixed.wav", "text.wav"]
    assert [f.result.wall_s for f in model.files] == [0.5] * 4
    assert [f.result.cpu_s for f in model.files] == [1.0] * 4
    assert model.files[3].result.error_code == "audio_unreadable"
    assert model.totals.score.words.errors == 2
    assert model.totals.score.words.reference == 5
    assert (model.run.elapsed_s, model.run.cpu_s, model.run.peak_rss_bytes) == (2.0, 4.0, 5000)
    assert model.rtfx_wall == 15.0


async def test_raw_formats_and_languages_reach_the_transcriber(tmp_path: Path, costs: Costs) -> None:
    transcriber = Scripted(costs, SAYS)
    await Bench(transcriber, costs, costs.clock).run(manifest(tmp_path), ["small"])
    assert transcriber.calls[1:] == [
        ("good.wav", None, "en", "small"),
        ("call.ulaw", RawFormat("mulaw", 8000, 1), "en", "small"),
        ("mixed.wav", None, None, "small"),
        ("text.wav", None, None, "small"),
    ]


async def test_loading_the_model_is_not_counted(tmp_path: Path, costs: Costs) -> None:
    transcriber = Scripted(costs, SAYS)
    report = await Bench(transcriber, costs, costs.clock).run(manifest(tmp_path), ["small"])
    assert transcriber.calls[0][0] == "good.wav"
    assert report.models[0].run.warm_up_s == 0.5
    assert len(transcriber.calls) == len(ROWS) + 1


async def test_progress_counts_over_all_models_and_tells_failures(tmp_path: Path, costs: Costs) -> None:
    seen: list[BenchProgress] = []
    report = await Bench(Scripted(costs, SAYS), costs, costs.clock).run(
        manifest(tmp_path), ["small", "large", "small"], on_progress=seen.append
    )
    assert [m.model for m in report.models] == ["small", "large"]
    assert [p.done for p in seen] == list(range(1, 9))
    assert {p.total for p in seen} == {8}
    assert seen[3] == BenchProgress("small", "text.wav", 4, 8, "audio_unreadable")
    assert seen[4].model == "large"


async def test_several_files_at_once_stay_in_order_and_share_the_cpu(tmp_path: Path, costs: Costs) -> None:
    transcriber = Scripted(costs, SAYS)
    report = await Bench(transcriber, costs, costs.clock).run(manifest(tmp_path), ["small"], concurrency=3)
    files = report.models[0].files
    assert transcriber.most_running == 3
    assert [f.result.file for f in files] == [row["audio"] for row in ROWS]
    assert {f.result.cpu_s for f in files} == {None}
    assert report.models[0].run.cpu_s == 4.0


async def test_a_defect_on_one_file_is_a_row_too(tmp_path: Path, costs: Costs) -> None:
    transcriber = Scripted(costs, {**SAYS, "call.ulaw": ZeroDivisionError("secret")})
    report = await Bench(transcriber, costs, costs.clock).run(manifest(tmp_path), ["small"])
    row = report.models[0].files[1].result
    assert (row.error_code, row.error_message) == ("internal_error", "ZeroDivisionError")
    assert report.models[0].totals.files == 4


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize(
    "error", [ModelNotFound("no such model"), DependencyMissing("install it")], ids=lambda e: e.code
)
@pytest.mark.parametrize("file", ["good.wav", "call.ulaw"])
async def test_what_concerns_the_model_stops_the_run(
    tmp_path: Path, costs: Costs, error: VoiceForgeError, file: str, concurrency: int
) -> None:
    bench = Bench(Scripted(costs, {**SAYS, file: error}), costs, costs.clock)
    with pytest.raises(type(error)) as stopped:
        await bench.run(manifest(tmp_path), ["small"], concurrency=concurrency)
    assert stopped.value is error


async def test_wishes_that_cannot_be_are_refused_before_anything_runs(tmp_path: Path, costs: Costs) -> None:
    transcriber = Scripted(costs, SAYS)
    bench = Bench(transcriber, costs, costs.clock)
    with pytest.raises(InvalidRequest, match="no model"):
        await bench.run(manifest(tmp_path), [])
    with pytest.raises(InvalidRequest, match="concurrency"):
        await bench.run(manifest(tmp_path), ["small"], concurrency=0)
    with pytest.raises(UnsupportedOption):
        await bench.run(manifest(tmp_path), ["small"], normaliser="loud")
    with pytest.raises(InvalidRequest, match="No such file"):
        await bench.run(tmp_path / "none", ["small"])
    assert transcriber.calls == []


async def test_the_report_can_be_kept(tmp_path: Path, costs: Costs) -> None:
    bench = Bench(Scripted(costs, SAYS), costs, costs.clock)
    report = await bench.run(manifest(tmp_path), ["small"])
    bench.write_json(report, tmp_path / "out.json")
    bench.write_picture(report, tmp_path / "out.png")
    assert json.loads((tmp_path / "out.json").read_text())["models"][0]["totals"]["wer"] == 0.4
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InvalidRequest, match="cannot write the report"):
        bench.write_json(report, tmp_path / "nowhere" / "out.json")


def test_the_process_meter_sees_work_and_memory() -> None:
    meter = ProcessMeter()
    before = meter.cpu_s()
    began = time.process_time()
    while time.process_time() < began + 0.05:
        sum(range(10_000))
    assert meter.cpu_s() >= before + 0.02
    held = meter.rss_bytes()
    # From the system itself: an allocator may have that much lying about.
    with mmap.mmap(-1, 64 * 2**20) as block:
        block.write(b"x" * (64 * 2**20))
        assert meter.rss_bytes() > held + 32 * 2**20
