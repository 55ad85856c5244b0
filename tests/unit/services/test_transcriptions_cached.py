"""Identical requests through the real pipeline: worked on once, told from then on, and when not."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from voiceforge.errors import EngineFailed, QuotaExceeded, UnreadableAudio
from voiceforge.infra.cache.memory import MemoryCache
from voiceforge.infra.enginehost.in_process import InProcessHosts
from voiceforge.infra.modelstore.disk import DiskModelStore
from voiceforge.infra.modelstore.hub import Hub
from voiceforge.services.access import trusted
from voiceforge.services.engine_room import EngineRoom
from voiceforge.services.models import Models
from voiceforge.services.recordings import AudioBytes, AudioFile, Source, UrlSource
from voiceforge.services.result_cache import CacheUse, ResultCache
from voiceforge.services.samples import sample_recordings
from voiceforge.services.transcriptions import TranscribeRequest, Transcriptions
from voiceforge.speech.audio.waveform import Waveform
from voiceforge.speech.engines.base import Capabilities, DecodeOptions, Hypothesis
from voiceforge.speech.engines.tickets import BatcherLimits, Priority
from voiceforge.speech.formats.subtitles import SubtitleOptions
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.pipeline.listen import LocalListener
from voiceforge.speech.transcript import Finished, ModelRef, SegmentReady, TranscribeEvent
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.fake_engine import FakeEngine, says_by_length
from voiceforge.testing.kept_accounts import KeptAccounts

MODEL = "moonshine-tiny-en"
PATIENCE_S = 20
BECKETT, DICKENS = sample_recordings()
CONTENT = BECKETT.read_bytes()
PLAIN = TranscribeOptions()


@dataclass
class Gate:
    """The engine's script: every window waits until it is let through."""

    decoding: threading.Event = field(default_factory=threading.Event)
    open: threading.Event = field(default_factory=threading.Event)
    broken: bool = False

    def __call__(self, window: Waveform, options: DecodeOptions) -> Hypothesis:
        self.decoding.set()
        assert self.open.wait(PATIENCE_S)
        if self.broken:
            raise EngineFailed("it broke")
        return says_by_length()(window, options)


@dataclass
class House:
    service: Transcriptions
    engines: EngineRoom
    engine: FakeEngine
    gate: Gate
    results: ResultCache
    metrics: Metrics
    temp_dir: Path

    def lookups(self, outcome: str) -> float:
        return self.metrics.total("cache_lookups", outcome=outcome)


@dataclass
class Fetcher:
    content: bytes
    fetched: int = 0

    async def fetch(self, url: str, target: Path) -> None:
        self.fetched += 1
        await asyncio.to_thread(target.write_bytes, self.content)


Build = Callable[..., House]


@pytest.fixture(scope="module")
def vad() -> SileroModel:
    return SileroModel()


@pytest.fixture
async def build(tmp_path: Path, vad: SileroModel) -> AsyncIterator[Build]:
    built: list[House] = []

    def make(*, revision: str = "0.0.49", fetcher: Fetcher | None = None) -> House:
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
        results = ResultCache(
            MemoryCache(1 << 20), recipe="test", ttl_s=60, max_entry_bytes=1 << 20, metrics=metrics
        )
        temp_dir = tmp_path / "tmp"
        temp_dir.mkdir(exist_ok=True)
        service = Transcriptions(
            models=Models(store, default=MODEL, aliases={}, loaded=engines),
            engines=engines,
            listener=LocalListener(lambda: vad),
            aligner=lambda: None,
            fetcher=(lambda: fetcher) if fetcher is not None else None,
            subtitles=SubtitleOptions(),
            metrics=metrics,
            temp_dir=temp_dir,
            max_threads=8,
            results=results,
        )
        built.append(House(service, engines, engine, gate, results, metrics, temp_dir))
        return built[-1]

    yield make
    for house in built:
        house.gate.open.set()
        await asyncio.to_thread(house.engines.close, 0)
        await asyncio.to_thread(house.service.close)


def in_memory(content: bytes = CONTENT) -> AudioBytes:
    return AudioBytes((content,), hashlib.sha256(content).digest())


def request(source: Source | None = None, **changes: object) -> TranscribeRequest:
    return replace(TranscribeRequest(source or in_memory(), PLAIN), **changes)  # type: ignore[arg-type]


async def told(house: House, wanted: TranscribeRequest) -> list[TranscribeEvent]:
    return [event async for event in house.service.events(wanted)]


async def set_soon(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, PATIENCE_S)


# -- one after the other


async def test_the_second_request_is_answered_from_the_first(build: Build) -> None:
    house = build()
    first = await house.service.transcribe(request())
    worked = len(house.engine.calls)
    *segments, last = await told(house, request())
    assert len(house.engine.calls) == worked
    assert isinstance(last, Finished)
    assert first.cached_at is None
    assert last.transcript.cached_at is not None
    assert replace(last.transcript, cached_at=None) == first
    assert segments == [SegmentReady(segment) for segment in first.segments]
    assert (house.lookups("hit"), house.lookups("miss")) == (1, 1)
    assert house.metrics.total("audio_seconds") == pytest.approx(first.duration)  # worked on, not told


async def test_it_is_the_bytes_that_count_wherever_they_are(build: Build, tmp_path: Path) -> None:
    fetcher = Fetcher(CONTENT)
    house = build(fetcher=fetcher)
    await house.service.transcribe(request())
    worked = len(house.engine.calls)
    elsewhere = tmp_path / "other.name"
    elsewhere.write_bytes(CONTENT)
    sources: list[Source] = [
        elsewhere,
        AudioFile(elsewhere, in_memory().sha256),
        AudioBytes((CONTENT[:100], memoryview(CONTENT)[100:]), in_memory().sha256),
        UrlSource("http://x/a.wav"),
    ]
    for source in sources:
        assert (await house.service.transcribe(request(source))).cached_at is not None
    assert len(house.engine.calls) == worked
    assert fetcher.fetched == 1
    assert list(house.temp_dir.iterdir()) == []


@pytest.mark.parametrize(
    "other",
    [
        request(options=replace(PLAIN, words=True)),
        request(in_memory(DICKENS.read_bytes())),
        request(caller=trusted("somebody else")),
        request(cache=CacheUse.FRESH),
        request(cache=CacheUse.NONE),
    ],
    ids=["options", "audio", "tenant", "no-cache", "no-store"],
)
async def test_another_request_is_worked_on(build: Build, other: TranscribeRequest) -> None:
    house = build()
    await house.service.transcribe(request())
    worked = len(house.engine.calls)
    assert (await house.service.transcribe(other)).cached_at is None
    assert len(house.engine.calls) > worked


async def test_no_store_leaves_nothing_and_no_cache_leaves_a_new_result(build: Build) -> None:
    house = build()
    await house.service.transcribe(request(cache=CacheUse.NONE))
    assert house.results.stats().entries == 0
    await house.service.transcribe(request(cache=CacheUse.FRESH))
    assert house.results.stats().entries == 1
    assert (await house.service.transcribe(request())).cached_at is not None


async def test_what_samples_is_neither_kept_nor_shared(build: Build) -> None:
    house = build()
    house.gate.open.clear()
    sampling = request(options=replace(PLAIN, temperature=0.7))
    running = [asyncio.create_task(house.service.transcribe(sampling)) for _ in range(2)]
    await set_soon(house.gate.decoding)
    house.gate.open.set()
    await asyncio.gather(*running)
    assert house.metrics.total("audio_seconds") == pytest.approx(2 * running[0].result().duration)
    assert house.results.stats().entries == 0
    assert (await house.service.transcribe(request(options=replace(PLAIN, temperature=0.0)))).text
    assert house.results.stats().entries == 1


async def test_a_failure_is_not_kept(build: Build) -> None:
    house = build()
    house.gate.broken = True
    with pytest.raises(EngineFailed):
        await house.service.transcribe(request())
    house.gate.broken = False
    assert (await house.service.transcribe(request())).cached_at is None


async def test_a_result_is_kept_under_the_model_that_made_it(build: Build) -> None:
    """A model may be replaced between the look at its files and its load."""
    house = build(revision="newer than on the disk")
    first = await house.service.transcribe(request())
    assert first.model.revision == "newer than on the disk"
    assert (await house.service.transcribe(request())).cached_at is not None


async def test_a_file_that_cannot_be_read_is_told(build: Build, tmp_path: Path) -> None:
    with pytest.raises(UnreadableAudio):
        await build().service.transcribe(request(tmp_path / "missing.wav"))


# -- at the same time


async def test_identical_requests_at_the_same_time_run_once(build: Build) -> None:
    house = build()
    house.gate.open.clear()
    early = [asyncio.create_task(told(house, request())) for _ in range(4)]
    await set_soon(house.gate.decoding)
    late = [asyncio.create_task(told(house, request())) for _ in range(4)]
    await asyncio.sleep(0)
    house.gate.open.set()
    everybody = await asyncio.gather(*early, *late)
    assert all(events == everybody[0] for events in everybody)
    assert isinstance(everybody[0][-1], Finished)
    assert everybody[0][-1].transcript.cached_at is None
    assert house.metrics.total("audio_seconds") == pytest.approx(everybody[0][-1].transcript.duration)
    assert (house.lookups("miss"), house.lookups("shared"), house.lookups("hit")) == (1, 7, 0)
    assert house.engines.open_tickets() == 0


async def test_more_urgent_work_does_not_wait_behind_less_urgent(build: Build) -> None:
    house = build()
    house.gate.open.clear()
    bulk = asyncio.create_task(house.service.transcribe(request(priority=Priority.BULK)))
    await set_soon(house.gate.decoding)
    urgent = asyncio.create_task(house.service.transcribe(request(priority=Priority.INTERACTIVE)))
    await asyncio.sleep(0)
    house.gate.open.set()
    await asyncio.gather(bulk, urgent)
    assert house.lookups("shared") == 0


@pytest.mark.parametrize("leaver", [0, 1])
async def test_one_leaves_and_the_other_gets_its_result(build: Build, leaver: int) -> None:
    house = build()
    house.gate.open.clear()
    running = [asyncio.create_task(house.service.transcribe(request())) for _ in range(2)]
    await set_soon(house.gate.decoding)
    running[leaver].cancel()
    with pytest.raises(asyncio.CancelledError):
        await running[leaver]
    house.gate.open.set()
    assert (await running[1 - leaver]).text
    assert house.metrics.total("cache_lookups", outcome="shared") == 1


async def test_when_all_have_left_the_decode_stops(build: Build) -> None:
    house = build()
    house.gate.open.clear()
    long = request(in_memory(DICKENS.read_bytes()))
    running = [asyncio.create_task(house.service.transcribe(long)) for _ in range(3)]
    await set_soon(house.gate.decoding)
    for task in running:
        task.cancel()
    house.gate.open.set()
    for task in running:
        with pytest.raises(asyncio.CancelledError):
            await task
    assert house.engines.open_tickets() == 0
    assert len(house.engine.calls) <= 2  # of some fifteen
    assert house.results.stats().entries == 0


async def test_a_failure_reaches_everybody(build: Build) -> None:
    house = build()
    house.gate.open.clear()
    running = [asyncio.create_task(house.service.transcribe(request())) for _ in range(3)]
    await set_soon(house.gate.decoding)
    house.gate.broken = True
    house.gate.open.set()
    results = await asyncio.gather(*running, return_exceptions=True)
    assert [type(result) for result in results] == [EngineFailed] * 3


async def test_who_brought_the_file_stays_until_the_others_have_been_served(build: Build) -> None:
    """The file goes when the request that brought it ends."""
    house = build()
    house.gate.open.clear()
    file = request(AudioFile(BECKETT, in_memory().sha256))
    lender = asyncio.create_task(house.service.transcribe(file))
    await set_soon(house.gate.decoding)
    other = asyncio.create_task(house.service.transcribe(file))
    await asyncio.sleep(0)
    assert house.lookups("shared") == 1
    for _ in range(3):
        lender.cancel()
        await asyncio.wait([lender], timeout=0.02)
        assert not lender.done()
    house.gate.open.set()
    assert (await other).text
    with pytest.raises(asyncio.CancelledError):
        await lender


async def test_leaving_the_loop_over_shared_events_stops_nothing_of_the_others(build: Build) -> None:
    house = build()
    long = request(in_memory(DICKENS.read_bytes()))
    staying = asyncio.create_task(told(house, long))
    async with contextlib.aclosing(house.service.events(long)) as events:
        async for event in events:
            if isinstance(event, SegmentReady):
                break
    assert isinstance((await staying)[-1], Finished)


# -- accounts


async def test_whatever_is_told_is_booked_once_for_whom_it_was_told(build: Build) -> None:
    house, accounts = build(), KeptAccounts()
    house.service.keep_accounts(accounts)
    somebody, other = (replace(trusted(), key_id=f"key-{n}") for n in range(2))
    house.gate.open.clear()
    sharing = [
        asyncio.create_task(house.service.transcribe(request(caller=caller, door="openai")))
        for caller in (somebody, other)
    ]
    await set_soon(house.gate.decoding)
    house.gate.open.set()
    done = await asyncio.gather(*sharing)
    assert [(heard.caller.key_id, heard.door, heard.cached) for heard in accounts.heard] == [
        ("key-0", "openai", False),
        ("key-1", "openai", False),
    ]
    assert {(heard.model, heard.work_class, heard.audio_s) for heard in accounts.heard} == {
        (MODEL, "interactive", done[0].duration)
    }
    assert all(heard.latency_s > 0 for heard in accounts.heard)

    accounts.heard.clear()
    await house.service.transcribe(request(door="native"))
    made = await house.service.recall(request(door="deepgram"), "shape", lambda transcript: transcript.text)
    again = await house.service.recall(request(door="deepgram"), "shape", lambda transcript: transcript.text)
    assert made == again == done[0].text
    assert [(heard.door, heard.cached, heard.audio_s) for heard in accounts.heard] == [
        ("native", True, done[0].duration),
        ("deepgram", True, done[0].duration),
        ("deepgram", True, done[0].duration),
    ]


async def test_what_failed_or_is_nobody_s_wish_is_not_booked(build: Build) -> None:
    house, accounts = build(), KeptAccounts()
    house.service.keep_accounts(accounts)
    await house.service.transcribe(request())
    house.gate.broken = True
    with pytest.raises(EngineFailed):
        await house.service.transcribe(request(door="native", cache=CacheUse.FRESH))
    assert accounts.heard == []


async def test_who_has_nothing_left_is_refused_before_anything_is_done(build: Build) -> None:
    house, accounts = build(), KeptAccounts(used_up=True)
    house.service.keep_accounts(accounts)
    with pytest.raises(QuotaExceeded):
        house.service.check(trusted(), None, PLAIN)
    with pytest.raises(QuotaExceeded):
        await house.service.transcribe(request())
    with pytest.raises(QuotaExceeded):
        await house.service.recall(request(), "shape", str)
    assert not house.engine.calls
