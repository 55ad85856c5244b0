"""Transcriptions for whoever keeps what was done so far: chunks, earlier results, and how it is stopped."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from voiceforge.errors import EngineFailed, ModelNotInstalled, UnsupportedOption
from voiceforge.infra.cache.base import Cache, CacheKey
from voiceforge.infra.cache.memory import MemoryCache
from voiceforge.infra.enginehost.in_process import InProcessHosts
from voiceforge.infra.modelstore.disk import DiskModelStore
from voiceforge.infra.modelstore.hub import Hub
from voiceforge.services.engine_room import EngineRoom
from voiceforge.services.models import Models
from voiceforge.services.recordings import AudioFile
from voiceforge.services.result_cache import CacheUse, ResultCache
from voiceforge.services.samples import sample_recordings
from voiceforge.services.transcriptions import TranscribeRequest, Transcriptions
from voiceforge.speech.audio.waveform import SAMPLE_RATE_HZ, Waveform
from voiceforge.speech.engines.base import Capabilities, DecodeOptions, Hypothesis
from voiceforge.speech.engines.tickets import BatcherLimits
from voiceforge.speech.formats.subtitles import SubtitleOptions
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.pipeline.checkpoints import Chunk, ChunkDone, WorkEvent
from voiceforge.speech.pipeline.listen import LocalListener
from voiceforge.speech.transcript import Finished, ModelRef, Progress, SegmentReady, Transcript
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.fake_engine import FakeEngine, says_by_length
from voiceforge.testing.log_lines import log_lines

MODEL = "moonshine-tiny-en"
PATIENCE_S = 20
RECORDING = sample_recordings()[1]
"""44 seconds: one chunk, and a rest."""
SHA256 = hashlib.sha256(RECORDING.read_bytes()).digest()
PLAIN = TranscribeOptions()


@dataclass
class Gate:
    """The engine's script: every window waits until it is let through."""

    decoding: threading.Event = field(default_factory=threading.Event)
    open: threading.Event = field(default_factory=threading.Event)
    broken_from: int | None = None
    begun: int = 0

    def __call__(self, window: Waveform, options: DecodeOptions) -> Hypothesis:
        self.decoding.set()
        assert self.open.wait(PATIENCE_S)
        self.begun += 1
        if self.broken_from is not None and self.begun > self.broken_from:
            raise EngineFailed("it broke")
        return says_by_length()(window, options)


class FullCache(MemoryCache):
    """Fails in a way nobody foresaw."""

    async def put(self, key: CacheKey, data: bytes, ttl_s: float) -> None:
        raise OSError("no space left")


@dataclass
class House:
    service: Transcriptions
    engines: EngineRoom
    engine: FakeEngine
    gate: Gate
    metrics: Metrics

    async def work(self, wanted: TranscribeRequest, done: Sequence[Chunk] = ()) -> list[WorkEvent]:
        return [event async for event in self.service.work(wanted, done=done)]

    def lookups(self, outcome: str) -> float:
        return self.metrics.total("cache_lookups", outcome=outcome)

    @property
    def heard_s(self) -> float:
        return sum(n for call in self.engine.calls for n in call.window_samples) / SAMPLE_RATE_HZ


Build = Callable[..., House]


@pytest.fixture(scope="module")
def vad() -> SileroModel:
    return SileroModel()


@pytest.fixture
async def build(tmp_path: Path, vad: SileroModel) -> AsyncIterator[Build]:
    built: list[House] = []

    def make(*, revision: str = "0.0.49", cache: Cache | None = None, recipe: str = "1") -> House:
        gate = Gate()
        gate.open.set()
        engine = FakeEngine(
            gate,
            model=ModelRef(MODEL, revision),
            capabilities=Capabilities(
                languages=frozenset({"en"}), longest_window_s=30.0, best_window_s=4.0, temperature=True
            ),
        )
        metrics = Metrics("test")
        engines = EngineRoom(InProcessHosts(lambda _: engine, BatcherLimits()), metrics=metrics)
        store = DiskModelStore(tmp_path / "models", Hub(None), offline=True)
        service = Transcriptions(
            models=Models(store, default=MODEL, aliases={}, loaded=engines),
            engines=engines,
            listener=LocalListener(lambda: vad),
            aligner=lambda: None,
            fetcher=None,
            subtitles=SubtitleOptions(),
            metrics=metrics,
            temp_dir=tmp_path,
            max_threads=4,
            results=ResultCache(
                cache or MemoryCache(1 << 20), recipe="", ttl_s=60, max_entry_bytes=1 << 20, metrics=metrics
            ),
            recipe=recipe,
        )
        built.append(House(service, engines, engine, gate, metrics))
        return built[-1]

    yield make
    for house in built:
        house.gate.open.set()
        await asyncio.to_thread(house.engines.close, 0)
        await asyncio.to_thread(house.service.close)


def request(**changes: object) -> TranscribeRequest:
    wanted = TranscribeRequest(AudioFile(RECORDING, SHA256), PLAIN, cache=CacheUse.NONE)
    return replace(wanted, **changes)  # type: ignore[arg-type]


def chunks(events: Sequence[WorkEvent]) -> list[Chunk]:
    return [event.chunk for event in events if isinstance(event, ChunkDone)]


def document(events: Sequence[WorkEvent]) -> Transcript:
    """But for what it took, and when."""
    last = events[-1]
    assert isinstance(last, Finished)
    return replace(last.transcript, processing_s=0.0, rtf=0.0, cached_at=None)


async def set_soon(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, PATIENCE_S)


async def test_chunks_are_told_to_who_asks_for_work_and_to_nobody_else(build: Build) -> None:
    house = build()
    worked = await house.work(request())
    assert len(chunks(worked)) == 1
    told = [event async for event in house.service.events(request())]
    assert {type(event) for event in told} == {Progress, SegmentReady, Finished}
    assert document(told) == document(worked)


async def test_what_an_engine_broke_goes_on_where_it_was(build: Build) -> None:
    whole = await build().work(request())
    broken = build()
    broken.gate.broken_from = 12  # windows, of 13; a chunk has eleven
    told: list[WorkEvent] = []

    async def tell() -> None:
        async for event in broken.service.work(request()):
            told.append(event)

    with pytest.raises(EngineFailed):
        await tell()
    assert len(chunks(told)) == 1
    house = build()
    again = await house.work(request(), chunks(told))
    assert document(again) == document(whole)
    assert again[0] == Progress(chunks(told)[0].end, document(whole).duration)
    assert 0 < house.heard_s < 6


async def test_chunks_carry_the_fingerprint_of_their_request(build: Build) -> None:
    house = build()
    (chunk,) = chunks(await house.work(request()))
    assert house.service.fingerprint(request()) == chunk.fingerprint
    assert build().service.fingerprint(request(model=MODEL)) == chunk.fingerprint
    others = {
        house.service.fingerprint(request(options=TranscribeOptions(words=True))),
        build(recipe="2").service.fingerprint(request()),
    }
    later = build(revision="0.0.50")
    await later.work(request())
    others.add(later.service.fingerprint(request()))
    assert len({chunk.fingerprint, *others}) == 4
    with pytest.raises(ModelNotInstalled):
        house.service.fingerprint(request(model="nobody/knows-it"))


@pytest.mark.parametrize("change", [{"revision": "0.0.50"}, {"recipe": "2"}], ids=["model", "program"])
async def test_chunks_of_another_model_or_program_are_not_used(build: Build, change: dict[str, str]) -> None:
    done = chunks(await build().work(request()))
    house = build(**change)
    again = await house.work(request(), done)
    assert house.heard_s > 30
    assert [chunk.index for chunk in chunks(again)] == [0]
    assert chunks(again)[0].fingerprint != done[0].fingerprint


async def test_an_earlier_result_is_told_at_once_and_a_new_one_kept(build: Build) -> None:
    house = build()
    wanted = request(cache=CacheUse.NORMAL)
    first = await house.work(wanted)
    heard_s = house.heard_s
    assert (house.lookups("miss"), house.lookups("hit")) == (1, 0)
    second = await house.work(wanted, chunks(first))
    assert {type(event) for event in second} == {SegmentReady, Finished}
    third = [event async for event in house.service.events(wanted)]
    assert document(third) == document(second) == document(first)
    assert (house.lookups("miss"), house.lookups("hit")) == (1, 2)
    assert house.heard_s == heard_s
    assert document(await house.work(replace(wanted, cache=CacheUse.FRESH))) == document(first)
    assert house.heard_s == 2 * heard_s


async def test_without_the_cache_nothing_is_looked_up_or_kept(build: Build) -> None:
    house = build()
    await house.work(request())
    await house.work(request(cache=CacheUse.NORMAL, options=TranscribeOptions(temperature=0.5)))
    assert house.lookups("hit") + house.lookups("miss") == 0
    await house.work(request(cache=CacheUse.NORMAL))
    assert house.lookups("miss") == 1


async def test_a_result_that_cannot_be_kept_is_told_all_the_same(build: Build) -> None:
    house = build(cache=FullCache(1 << 20))
    with log_lines() as lines:
        events = await house.work(request(cache=CacheUse.NORMAL))
    assert document(events).text
    (line,) = [line for line in lines if line["event"] == "result not kept"]
    assert line["problem"] == "OSError"
    assert "space" not in str(line)


async def test_work_is_its_own_where_others_wait_for_the_same(build: Build) -> None:
    house = build()
    house.gate.open.clear()
    wanted = request(cache=CacheUse.NORMAL)
    flying = asyncio.create_task(house.service.transcribe(wanted))
    await set_soon(house.gate.decoding)
    work = house.service.work(wanted)
    told = [await anext(work)]
    house.gate.open.set()
    told += [event async for event in work]
    assert document(told).text == (await flying).text
    assert house.lookups("miss") == 2
    assert house.lookups("shared") == 0


async def test_closing_the_events_stops_the_work(build: Build) -> None:
    house = build()
    async with aclosing(house.service.work(request())) as events:
        async for event in events:
            if isinstance(event, SegmentReady):
                break
    assert house.engines.open_tickets() == 0


async def test_cancelling_who_reads_stops_the_work(build: Build) -> None:
    house = build()
    house.gate.open.clear()
    reader = asyncio.create_task(house.work(request()))
    await set_soon(house.gate.decoding)
    reader.cancel()
    house.gate.open.set()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert house.engines.open_tickets() == 0
    assert len(house.engine.calls) <= 2  # of some ten


async def test_what_cannot_work_is_refused_before_anything_is_heard(build: Build) -> None:
    house = build()
    with pytest.raises(UnsupportedOption):
        await house.work(request(options=TranscribeOptions(language="de")))
    assert house.engine.calls == ()
