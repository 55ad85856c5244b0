"""A transcription seen from the event loop: what comes out, and what is left when nobody wants it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from voiceforge.errors import (
    AudioTooShort,
    EngineFailed,
    InvalidRequest,
    ModelNotFound,
    ModelNotInstalled,
    Overloaded,
    ShuttingDown,
    UnreadableAudio,
    UnsupportedOption,
    UpstreamFailed,
)
from voiceforge.infra.enginehost.in_process import InProcessHosts
from voiceforge.infra.modelstore.disk import DiskModelStore
from voiceforge.infra.modelstore.hub import Hub
from voiceforge.services.access import OWNER
from voiceforge.services.engine_room import EngineRoom
from voiceforge.services.models import Models
from voiceforge.services.recordings import UrlSource
from voiceforge.services.samples import sample_recordings
from voiceforge.services.transcriptions import TranscribeRequest, Transcriptions
from voiceforge.speech.audio.waveform import Waveform
from voiceforge.speech.engines.base import Capabilities, DecodeOptions, Hypothesis
from voiceforge.speech.engines.tickets import BatcherLimits
from voiceforge.speech.formats import FORMATS
from voiceforge.speech.formats.subtitles import SubtitleOptions
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.pipeline.listen import LocalListener
from voiceforge.speech.transcript.events import Finished, Progress, SegmentReady
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.fake_engine import FakeEngine, Script, says, says_by_length

MODEL = "moonshine-tiny-en"
LONGEST_WAIT_S = 20
ONE_BY_ONE = Capabilities(languages=frozenset({"en"}), longest_window_s=30.0, best_window_s=4.0)
BECKETT, DICKENS = sample_recordings()
PLAIN = TranscribeOptions()


@dataclass
class Held:
    """A script that waits on every window until it is released."""

    then: Script = field(default_factory=says_by_length)
    decoding: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)

    def __call__(self, window: Waveform, options: DecodeOptions) -> Hypothesis:
        self.decoding.set()
        assert self.release.wait(LONGEST_WAIT_S)
        return self.then(window, options)


@dataclass
class Fetched:
    """Brings a recording of the test's, or an error. Remembers where to."""

    content: bytes | Exception
    targets: list[Path] = field(default_factory=list)

    async def fetch(self, url: str, target: Path) -> None:
        self.targets.append(target)
        if isinstance(self.content, Exception):
            raise self.content
        await asyncio.to_thread(target.write_bytes, self.content)


@dataclass
class House:
    service: Transcriptions
    engines: EngineRoom
    engine: FakeEngine
    metrics: Metrics
    loads: list[str]


Build = Callable[..., House]


@pytest.fixture(scope="module")
def vad() -> SileroModel:
    return SileroModel()


@pytest.fixture
async def build(tmp_path: Path, vad: SileroModel) -> AsyncIterator[Build]:
    built: list[House] = []

    def build(
        script: Script | None = None,
        *,
        fetcher: Fetched | None = None,
        before_load: Callable[[], None] = lambda: None,
        limits: BatcherLimits | None = None,
        max_threads: int = 4,
    ) -> House:
        engine = FakeEngine(script, capabilities=ONE_BY_ONE)
        loads: list[str] = []

        def load(model_id: str) -> FakeEngine:
            loads.append(model_id)
            before_load()
            return engine

        metrics = Metrics("test")
        engines = EngineRoom(InProcessHosts(load, limits), metrics=metrics)
        store = DiskModelStore(tmp_path / "models", Hub(None), offline=True)
        service = Transcriptions(
            models=Models(store, default=MODEL, aliases={"whisper-1": "default"}, loaded=engines),
            engines=engines,
            listener=LocalListener(lambda: vad),
            aligner=lambda: None,
            fetcher=(lambda: fetcher) if fetcher is not None else None,
            subtitles=SubtitleOptions(),
            metrics=metrics,
            temp_dir=tmp_path,
            max_threads=max_threads,
        )
        built.append(House(service, engines, engine, metrics, loads))
        return built[-1]

    yield build
    for house in built:
        await asyncio.to_thread(house.engines.close, 0)
        await asyncio.to_thread(house.service.close)


def files_under(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def set_soon(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, LONGEST_WAIT_S)


# -- what comes out


async def test_events_come_as_they_happen_and_the_document_last(build: Build) -> None:
    house = build()
    events = [event async for event in house.service.events(TranscribeRequest(BECKETT, PLAIN))]
    *before, last = events
    assert isinstance(last, Finished)
    assert {type(event) for event in before} == {Progress, SegmentReady}
    assert [e.segment for e in before if isinstance(e, SegmentReady)] == list(last.transcript.segments)
    assert house.loads == [MODEL]
    assert house.engines.open_tickets() == 0
    assert house.metrics.total("audio_seconds", model=MODEL) == pytest.approx(last.transcript.duration)


async def test_a_segment_is_there_before_the_engine_has_heard_the_rest(build: Build) -> None:
    held = Held()
    first_window = threading.Event()

    def first_at_once(window: Waveform, options: DecodeOptions) -> Hypothesis:
        if not first_window.is_set():
            first_window.set()
            return says_by_length()(window, options)
        return held(window, options)

    house = build(first_at_once)
    async for event in house.service.events(TranscribeRequest(DICKENS, PLAIN)):
        if isinstance(event, SegmentReady):
            held.release.set()  # nothing else would: were segments kept to the end, the engine would fail
    assert len(house.engine.calls) > 2


async def test_transcribe_gives_the_document(build: Build) -> None:
    house = build(says("hello there"))
    transcript = await house.service.transcribe(TranscribeRequest(BECKETT, PLAIN, model="whisper-1"))
    assert transcript.text.startswith("hello there")
    assert transcript.segments
    assert house.loads == [MODEL]


async def test_requests_run_side_by_side(build: Build) -> None:
    house = build()
    request = TranscribeRequest(BECKETT, PLAIN)
    transcripts = await asyncio.gather(*(house.service.transcribe(request) for _ in range(6)))
    assert len({transcript.text for transcript in transcripts}) == 1
    assert len(house.loads) == 1


async def test_every_format_can_be_written(build: Build) -> None:
    house = build(says("hello there"))
    options = replace(PLAIN, words=True)
    transcript = await house.service.transcribe(TranscribeRequest(BECKETT, options))
    assert set(house.service.formats()) == set(FORMATS)
    for fmt in house.service.formats():
        rendered = house.service.render(transcript, fmt, words=True)
        assert "hello" in rendered.body
        assert rendered.media_type == house.service.media_type(fmt)
        assert house.service.extension(fmt)
    with pytest.raises(UnsupportedOption):
        house.service.render(transcript, "docx")
    assert house.service.timed_options(PLAIN, "srt")
    assert not house.service.timed_options(PLAIN, "txt")


# -- what is refused, and when


@pytest.mark.parametrize(
    ("model", "options", "error"),
    [
        ("no-such-model", PLAIN, ModelNotFound),
        ("whisper-tiny", PLAIN, ModelNotInstalled),
        (None, TranscribeOptions(language="de"), UnsupportedOption),
        (None, TranscribeOptions(task="translate"), UnsupportedOption),
    ],
)
async def test_what_cannot_work_is_refused_before_anything_is_fetched_or_loaded(
    build: Build, model: str | None, options: TranscribeOptions, error: type[Exception]
) -> None:
    fetcher = Fetched(b"")
    house = build(fetcher=fetcher)
    with pytest.raises(error):
        house.service.check(OWNER, model, options)
    with pytest.raises(error):
        await house.service.transcribe(TranscribeRequest(UrlSource("http://x/"), options, model=model))
    assert (fetcher.targets, house.loads) == ([], [])


async def test_what_can_work_is_not(build: Build) -> None:
    house = build()
    assert house.service.check(OWNER, None, PLAIN) == MODEL
    assert house.service.check(OWNER, "whisper-1", TranscribeOptions(language="en", words=True)) == MODEL
    assert house.loads == []


async def test_what_is_wrong_with_the_audio_is_told(build: Build, tmp_path: Path) -> None:
    house = build()
    short, text = tmp_path / "short.wav", tmp_path / "text.wav"
    soundfile.write(short, np.zeros(160), 16_000)
    text.write_text("this is no audio\n" * 50)
    with pytest.raises(AudioTooShort):
        await house.service.transcribe(TranscribeRequest(short, PLAIN))
    with pytest.raises(UnreadableAudio):
        await house.service.transcribe(TranscribeRequest(text, PLAIN))
    assert house.engines.open_tickets() == 0


async def test_a_broken_engine_is_told_after_what_it_said_before(build: Build) -> None:
    said = 0

    def breaks(window: Waveform, options: DecodeOptions) -> Hypothesis:
        nonlocal said
        said += 1
        if said > 2:
            raise EngineFailed("it broke")
        return says_by_length()(window, options)

    house = build(breaks)
    seen = []

    async def read() -> None:
        async for event in house.service.events(TranscribeRequest(DICKENS, PLAIN)):
            seen.append(event)

    with pytest.raises(EngineFailed, match="it broke"):
        await read()
    assert any(isinstance(event, SegmentReady) for event in seen)
    assert house.engines.open_tickets() == 0


async def test_who_comes_too_late_is_told_at_once(build: Build) -> None:
    """Though every thread that may work is at work."""
    held = Held()
    house = build(held, limits=BatcherLimits(max_tickets=1), max_threads=1)
    first = asyncio.create_task(house.service.transcribe(TranscribeRequest(BECKETT, PLAIN)))
    await set_soon(held.decoding)
    with pytest.raises(Overloaded) as refused:
        await house.service.transcribe(TranscribeRequest(BECKETT, PLAIN))
    assert refused.value.retry_after_s
    held.release.set()
    assert (await first).text


# -- what is left when nobody wants it any more


async def test_closing_the_events_stops_the_decode(build: Build) -> None:
    held = Held()
    house = build(held)
    events = house.service.events(TranscribeRequest(DICKENS, PLAIN))
    reader = asyncio.create_task(anext(events))  # type: ignore[arg-type]
    await set_soon(held.decoding)
    reader.cancel()
    held.release.set()
    with contextlib.suppress(asyncio.CancelledError):
        await reader
    await events.aclose()
    assert house.engines.open_tickets() == 0
    called = len(house.engine.calls)
    assert called <= 2  # of some fifteen
    assert sum(house.engines.loaded()[MODEL].waiting().values()) == 0
    assert (await house.service.transcribe(TranscribeRequest(BECKETT, PLAIN))).text
    assert len(house.engine.calls) > called


async def test_leaving_the_loop_over_the_events_stops_the_decode(build: Build) -> None:
    house = build()
    async with contextlib.aclosing(house.service.events(TranscribeRequest(DICKENS, PLAIN))) as events:
        async for event in events:
            if isinstance(event, SegmentReady):
                break
    assert house.engines.open_tickets() == 0


async def test_a_fetched_recording_is_there_for_the_decode_and_gone_afterwards(
    build: Build, tmp_path: Path
) -> None:
    fetcher = Fetched(BECKETT.read_bytes())
    house = build(fetcher=fetcher)
    transcript = await house.service.transcribe(TranscribeRequest(UrlSource("http://x/a.wav"), PLAIN))
    assert transcript.text
    assert len(fetcher.targets) == 1
    assert files_under(tmp_path) == []


async def test_a_fetch_that_fails_leaves_nothing(build: Build, tmp_path: Path) -> None:
    house = build(fetcher=Fetched(UpstreamFailed("gone")))
    with pytest.raises(UpstreamFailed):
        await house.service.transcribe(TranscribeRequest(UrlSource("http://x/a.wav"), PLAIN))
    assert (files_under(tmp_path), house.loads) == ([], [])


async def test_without_a_fetcher_urls_are_refused(build: Build) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await build().service.transcribe(TranscribeRequest(UrlSource("http://x/a.wav"), PLAIN))
    assert refused.value.field == "url"


async def test_however_often_it_is_cancelled_the_file_stays_until_the_thread_is_done(
    build: Build, tmp_path: Path
) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        loading.set()
        assert go_on.wait(LONGEST_WAIT_S)

    house = build(before_load=slow, fetcher=Fetched(BECKETT.read_bytes()))
    request = TranscribeRequest(UrlSource("http://x/a.wav"), PLAIN)
    task = asyncio.create_task(house.service.transcribe(request))
    await set_soon(loading)
    for _ in range(3):
        task.cancel()
        await asyncio.wait([task], timeout=0.02)
        assert not task.done()
        assert len(files_under(tmp_path)) == 1
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files_under(tmp_path) == []
    assert house.engines.open_tickets() == 0


async def test_a_request_cancelled_while_its_model_loads_decodes_nothing(build: Build) -> None:
    loading, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        loading.set()
        assert go_on.wait(LONGEST_WAIT_S)

    house = build(before_load=slow)
    task = asyncio.create_task(house.service.transcribe(TranscribeRequest(BECKETT, PLAIN)))
    await set_soon(loading)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert house.engine.calls == ()
    assert house.engines.open_tickets() == 0
    assert house.engines.is_loaded(MODEL)


async def test_a_request_cancelled_before_its_turn_loads_nothing(build: Build) -> None:
    loading, go_on = threading.Semaphore(0), threading.Event()

    def slow() -> None:
        loading.release()
        assert go_on.wait(LONGEST_WAIT_S)

    house = build(before_load=slow, max_threads=0)  # one thread in all
    request = TranscribeRequest(BECKETT, PLAIN)
    first = asyncio.create_task(house.service.transcribe(request))
    assert await asyncio.to_thread(loading.acquire, timeout=LONGEST_WAIT_S)
    second = asyncio.create_task(house.service.transcribe(request))
    await asyncio.sleep(0)
    second.cancel()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await second
    alone = len((await first).segments)
    assert len(house.engine.calls) >= alone
    assert len(house.loads) == 1


async def test_work_that_has_not_begun_when_it_closes_is_told_so(build: Build) -> None:
    loading, go_on = threading.Semaphore(0), threading.Event()

    def slow() -> None:
        loading.release()
        assert go_on.wait(LONGEST_WAIT_S)

    house = build(before_load=slow, max_threads=0)
    request = TranscribeRequest(BECKETT, PLAIN)
    first = asyncio.create_task(house.service.transcribe(request))
    assert await asyncio.to_thread(loading.acquire, timeout=LONGEST_WAIT_S)
    waiting = asyncio.create_task(house.service.transcribe(request))
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(house.service.close))
    with pytest.raises(ShuttingDown):
        await waiting
    go_on.set()
    assert (await first).text
    await closing
    with pytest.raises(ShuttingDown):
        await house.service.transcribe(request)
