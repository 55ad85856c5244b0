"""Live streams seen from the event loop: real audio and voice detection, an engine with a script."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from voiceforge.errors import (
    Conflict,
    DeadlineExceeded,
    EngineFailed,
    ModelNotFound,
    ModelNotInstalled,
    NotFound,
    Overloaded,
    QuotaExceeded,
    ShuttingDown,
    UnreadableAudio,
    UnsupportedOption,
)
from voiceforge.infra.enginehost.in_process import InProcessHosts
from voiceforge.infra.modelstore.disk import DiskModelStore
from voiceforge.infra.modelstore.hub import Hub
from voiceforge.services.access import OWNER, trusted
from voiceforge.services.engine_room import EngineRoom
from voiceforge.services.models import Models
from voiceforge.services.samples import sample_recordings
from voiceforge.services.streams import Stream, StreamLimits, StreamRequest, Streams
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.audio.stream_decoder import LocalStreamDecoders
from voiceforge.speech.audio.waveform import Waveform
from voiceforge.speech.engines.base import Capabilities, DecodeOptions, Hypothesis
from voiceforge.speech.options import EncodedFormat, RawFormat, StreamOptions
from voiceforge.speech.transcript.stream_events import (
    Closed,
    Final,
    Flushed,
    Interim,
    SpeechStarted,
    StreamEvent,
)
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.fake_engine import FakeEngine, Script, says, says_by_length
from voiceforge.testing.kept_accounts import KeptAccounts
from voiceforge.testing.recordings import encode

MODEL = "moonshine-tiny-en"
LONGEST_WAIT_S = 30
RAW = RawFormat("s16le")
ENGLISH = Capabilities(languages=frozenset({"en"}), longest_window_s=30.0, best_window_s=10.0, max_keyterms=3)
BYTES_PER_S = 32_000


def _samples() -> Waveform:
    with open_audio(sample_recordings()[0]) as stream:
        return np.concatenate([block[0] for block in stream.blocks()])


BECKETT = _samples()
"""Ten seconds, six short sentences with pauses of more than half a second between them."""
SENTENCES = 6


def s16(samples: Waveform) -> bytes:
    return (samples * 32_767).astype("<i2").tobytes()


SPOKEN = s16(BECKETT)
QUIET = bytes(BYTES_PER_S)


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
class House:
    streams: Streams
    engines: EngineRoom
    engine: FakeEngine
    metrics: Metrics

    async def open(self, options: StreamOptions | None = None, **more: object) -> Stream:
        request = StreamRequest(options=options or StreamOptions(), audio=RAW)
        return await self.streams.open(replace(request, **more))  # type: ignore[arg-type]


Build = Callable[..., House]


@pytest.fixture(scope="module")
def vad() -> SileroModel:
    return SileroModel()


@pytest.fixture
async def build(tmp_path: Path, vad: SileroModel) -> AsyncIterator[Build]:
    built: list[House] = []

    def build(
        script: Script | None = None, *, capabilities: Capabilities = ENGLISH, **limits: float
    ) -> House:
        engine = FakeEngine(script or says("some words"), capabilities=capabilities)
        metrics = Metrics("test")
        engines = EngineRoom(InProcessHosts(lambda model_id: engine, None), metrics=metrics)
        store = DiskModelStore(tmp_path / "models", Hub(None), offline=True)
        streams = Streams(
            models=Models(store, default=MODEL, aliases={}, loaded=engines),
            engines=engines,
            aligner=lambda: None,
            decoders=LocalStreamDecoders(),
            metrics=metrics,
            limits=StreamLimits(**limits),  # type: ignore[arg-type]
            vad=lambda: vad,
        )
        built.append(House(streams, engines, engine, metrics))
        return built[-1]

    yield build
    for house in built:
        await asyncio.to_thread(house.engines.close, 0)
        await asyncio.to_thread(house.streams.close)


async def read(stream: Stream) -> list[StreamEvent]:
    async with asyncio.timeout(LONGEST_WAIT_S):
        return [event async for event in stream.events()]


async def until(stream: Stream, kind: type[StreamEvent]) -> list[StreamEvent]:
    """Read up to the first of a kind; the rest stays."""
    events = []
    async with asyncio.timeout(LONGEST_WAIT_S):
        async for event in stream.events():
            events.append(event)
            if isinstance(event, kind):
                break
    return events


async def heard(stream: Stream, audio: bytes, piece_bytes: int = 3_200) -> list[StreamEvent]:
    """Everything that comes of some audio, pushed while it is read."""

    async def push() -> None:
        for first in range(0, len(audio), piece_bytes):
            await stream.push(audio[first : first + piece_bytes])
        await stream.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(push())
        return await read(stream)


async def refused(house: House) -> bool:
    try:
        (await house.open()).abort()
    except Overloaded:
        return True
    return False


async def told_until_it_leaves(stream: Stream) -> list[StreamEvent]:
    events = []
    try:
        async for event in stream.events():
            events.append(event)
    except ShuttingDown:
        return events
    raise AssertionError("it did not leave")


def finals(events: list[StreamEvent]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


# -- what comes out


async def test_what_is_said_is_told_in_order_and_closed_comes_last(build: Build) -> None:
    house = build()
    stream = await house.open()
    events = await heard(stream, SPOKEN)
    assert isinstance(events[0], SpeechStarted)
    assert [final.utterance for final in finals(events)] == list(range(SENTENCES))
    assert {final.text for final in finals(events)} == {"some words"}
    assert events[-1] == Closed(len(BECKETT) / 16_000)
    assert stream.received_bytes == len(SPOKEN)
    assert house.engines.open_tickets() == 0
    assert house.metrics.total("streams_open") == 0


@pytest.mark.parametrize("piece_bytes", [1_001, 31_999, 10**6])
async def test_how_it_is_cut_changes_nothing_in_the_finals(build: Build, piece_bytes: int) -> None:
    house = build(says_by_length())
    whole = finals(await heard(await house.open(), SPOKEN))
    assert finals(await heard(await house.open(), SPOKEN, piece_bytes)) == whole


async def test_ten_thousand_messages_of_one_byte_are_audio_too(build: Build) -> None:
    house = build()
    assert (await heard(await house.open(), SPOKEN[:10_000], 1))[-1] == Closed(5_000 / 16_000)


async def test_odd_bytes_wait_for_their_other_half(build: Build) -> None:
    house = build()
    stream = await house.open()
    await stream.push(b"\0")
    await stream.push(b"")
    await stream.push(QUIET[:2])
    await stream.close()
    assert await read(stream) == [Closed(1 / 16_000)]


async def test_finalize_tells_at_once_what_was_said_so_far(build: Build) -> None:
    house = build()
    stream = await house.open()
    await stream.push(SPOKEN[: int(0.9 * BYTES_PER_S)])  # in the middle of the first sentence
    await stream.finalize()
    events = await until(stream, Flushed)
    assert [final.reason for final in finals(events)] == ["finalize"]
    await stream.close()
    assert (await read(stream))[-1] == Closed(0.9)


async def test_finalize_with_nothing_said_is_answered_all_the_same(build: Build) -> None:
    stream = await build().open()
    await stream.finalize()
    assert await until(stream, Flushed) == [Flushed(0.0)]


async def test_the_last_words_before_close_are_told(build: Build) -> None:
    stream = await build().open()
    await stream.push(SPOKEN[: int(0.9 * BYTES_PER_S)])
    await stream.close()
    await stream.close()
    events = await read(stream)
    assert [final.reason for final in finals(events)] == ["close"]
    assert isinstance(events[-1], Closed)


async def test_options_change_from_the_next_utterance_on(build: Build) -> None:
    house = build()
    stream = await house.open(StreamOptions(interim=False))
    await stream.push(SPOKEN[: 2 * BYTES_PER_S])
    await until(stream, Final)
    await stream.configure(StreamOptions(interim=False, keyterms=("Beckett",)))
    with pytest.raises(UnsupportedOption):
        await stream.configure(StreamOptions(keyterms=("a", "b", "c", "d")))
    await heard(stream, SPOKEN[2 * BYTES_PER_S :])
    terms = [call.options.keyterms for call in house.engine.calls]
    assert terms[0] == ()
    assert terms[-1] == ("Beckett",)


async def test_channels_apart_are_told_apart_and_closed_together(build: Build) -> None:
    house = build()
    both = np.stack([BECKETT, np.zeros_like(BECKETT)], axis=1)
    stream = await house.open(audio=RawFormat("s16le", channels=2), channels="split")
    assert stream.channels == 2
    await stream.push(s16(both)[: 4 * BYTES_PER_S])
    await stream.finalize()
    assert len([e for e in await until(stream, Flushed) if isinstance(e, Flushed)]) == 1
    events = await heard(stream, s16(both)[4 * BYTES_PER_S :])
    assert {final.channel for final in finals(events)} == {0}
    assert [type(event) for event in events].count(Closed) == 1


async def test_channels_mixed_are_one(build: Build) -> None:
    stream = await build().open(audio=RawFormat("s16le", channels=2))
    both = np.stack([BECKETT, BECKETT], axis=1)
    events = await heard(stream, s16(both))
    assert len(finals(events)) == SENTENCES
    assert events[-1] == Closed(len(BECKETT) / 16_000)


# -- encodings


@pytest.mark.parametrize(
    ("kind", "encoded"),
    [
        ("flac", EncodedFormat("flac")),
        ("flac", None),
        ("ogg-opus", EncodedFormat("ogg-opus")),
        ("webm", None),
        ("mp3", None),
        ("wav-s16", None),
    ],
)
async def test_encoded_audio_is_decoded_as_it_comes(
    build: Build, kind: str, encoded: EncodedFormat | None
) -> None:
    stream = await build().open(audio=encoded)
    rate_hz = 48_000 if kind in ("ogg-opus", "webm") else 16_000
    samples = np.repeat(BECKETT, rate_hz // 16_000)[:, None]
    audio = encode(samples, rate_hz, kind)  # type: ignore[arg-type]
    assert audio
    events = await heard(stream, audio, 700)
    assert len(finals(events)) == SENTENCES
    assert isinstance(events[-1], Closed)
    assert events[-1].duration == pytest.approx(len(BECKETT) / 16_000, abs=0.1)


async def test_bare_packets_of_opus_are_decoded_each(build: Build) -> None:
    import av

    context = av.CodecContext.create("libopus", "w")
    context.sample_rate, context.layout, context.format = 48_000, "mono", "s16"
    context.open()
    packets = []
    samples = (np.repeat(BECKETT, 3) * 32_767).astype(np.int16)
    for first in range(0, len(samples) - 959, 960):
        frame = av.AudioFrame.from_ndarray(samples[None, first : first + 960], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48_000, first
        packets += [bytes(packet) for packet in context.encode(frame)]
    stream = await build().open(audio=EncodedFormat("opus"))

    async def push() -> None:
        for number, packet in enumerate(packets):
            await stream.push(packet if number % 100 else packet[:3])  # some arrive damaged
        await stream.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(push())
        events = await read(stream)
    assert len(finals(events)) == SENTENCES


@pytest.mark.parametrize("encoded", [None, EncodedFormat("flac"), EncodedFormat("opus")])
async def test_what_is_no_audio_ends_the_stream_with_the_reason(
    build: Build, encoded: EncodedFormat | None
) -> None:
    house = build()
    stream = await house.open(audio=encoded)
    await stream.push(b"This is no audio. " * 100)
    await stream.close()
    with pytest.raises(UnreadableAudio):
        await read(stream)
    assert house.engines.open_tickets() == 0


async def test_encoded_streams_without_a_byte_just_close(build: Build) -> None:
    stream = await build().open(audio=None)
    await stream.close()
    assert await read(stream) == [Closed(0.0)]


# -- who waits, and who is turned away


async def test_a_push_waits_while_too_much_is_unheard(build: Build) -> None:
    held = Held()
    house = build(held, max_unheard_s=1.0)
    stream = await house.open()
    pushing = asyncio.create_task(stream.push(SPOKEN))
    events = asyncio.create_task(read(stream))
    held.release.set()
    await pushing
    await stream.close()
    assert len(finals(await events)) == SENTENCES


async def test_interims_wait_for_an_idle_engine_and_finals_do_not(build: Build) -> None:
    """Ten streams while the engine is held: no more interims than it can begin are asked of it."""
    held = Held(then=says("some words"))
    house = build(held, capabilities=replace(ENGLISH, parallel_decodes=1, max_batch_rows=1))
    streams = [await house.open(StreamOptions(interim_every_ms=100)) for _ in range(10)]
    for stream in streams:
        await stream.push(SPOKEN[: int(1.1 * BYTES_PER_S)])
    async with asyncio.timeout(LONGEST_WAIT_S):
        while any(stream.duration_s < 1.1 for stream in streams):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    for stream in streams:
        await stream.close()
    async with asyncio.timeout(LONGEST_WAIT_S):
        while house.metrics.total("stream_interims_dropped") < 8:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    held.release.set()
    told = await asyncio.gather(*map(read, streams))
    assert [len(finals(events)) for events in told] == [1] * 10
    interims = sum(isinstance(event, Interim) for events in told for event in events)
    assert interims <= 2
    assert len(house.engine.calls) <= 12


async def test_one_stream_too_many_is_refused_and_told_when_to_come_back(build: Build) -> None:
    house = build(max_sessions=2)
    first = await house.open()
    await house.open()
    with pytest.raises(Overloaded) as refused:
        await house.open()
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s >= 1
    first.abort()
    await house.open()


async def test_one_key_cannot_take_all_places(build: Build) -> None:
    house = build(max_sessions=3, max_sessions_per_tenant=1)
    await house.open(caller=trusted("a"))
    with pytest.raises(Overloaded):
        await house.open(caller=trusted("a"))
    await house.open(caller=trusted("b"))


async def test_nobody_new_is_let_in_while_those_inside_wait(build: Build) -> None:
    held = Held()
    house = build(held, max_lag_s=0.05)
    stream = await house.open()
    await stream.push(SPOKEN[: 2 * BYTES_PER_S])
    assert await asyncio.to_thread(held.decoding.wait, LONGEST_WAIT_S)
    async with asyncio.timeout(LONGEST_WAIT_S):
        while not await refused(house):  # noqa: ASYNC110 - it depends on the clock alone
            await asyncio.sleep(0.01)
    held.release.set()
    await stream.close()
    assert finals(await read(stream))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model": "no-such-model"}, ModelNotFound),
        ({"model": "whisper-tiny"}, ModelNotInstalled),
        ({"options": StreamOptions(language="fr")}, UnsupportedOption),
        ({"polish": MODEL}, UnsupportedOption),
    ],
)
async def test_what_cannot_work_is_refused_before_any_audio(
    build: Build, change: dict[str, object], error: type[Exception]
) -> None:
    house = build()
    with pytest.raises(error):
        await house.open(**change)
    assert house.engines.open_tickets() == 0


# -- ends


async def test_a_stream_without_audio_is_ended_and_keep_alives_prevent_it(build: Build) -> None:
    house = build(idle_s=0.2)
    stream = await house.open()
    loop = asyncio.get_running_loop()
    alive_until = loop.time() + 0.5
    while loop.time() < alive_until:
        stream.keep_alive()
        await asyncio.sleep(0.02)
    assert not stream.over
    with pytest.raises(DeadlineExceeded):
        await read(stream)
    with pytest.raises(DeadlineExceeded):
        await stream.push(QUIET)
    assert house.engines.open_tickets() == 0


async def test_a_stream_that_is_too_old_is_closed_with_its_finals(build: Build) -> None:
    house = build(max_session_s=0.3)
    stream = await house.open()
    await stream.push(SPOKEN[: int(0.9 * BYTES_PER_S)])
    events = await read(stream)
    assert [final.reason for final in finals(events)] == ["close"]
    with pytest.raises(Conflict):
        await stream.push(QUIET)


async def test_a_client_that_is_gone_leaves_nothing_behind(build: Build) -> None:
    held = Held()
    house = build(held)
    stream = await house.open()
    await stream.push(SPOKEN)
    assert await asyncio.to_thread(held.decoding.wait, LONGEST_WAIT_S)
    stream.abort()
    stream.abort()
    assert await read(stream) == []
    held.release.set()
    assert house.engines.open_tickets() == 0
    assert house.streams.open_count == 0
    with pytest.raises(NotFound):
        house.streams.resume(OWNER, stream.id, stream.token, after=0)


async def test_a_broken_engine_ends_the_stream_and_says_why(build: Build) -> None:
    def breaks(window: Waveform, options: DecodeOptions) -> Hypothesis:
        raise EngineFailed("it broke")

    house = build(breaks)
    stream = await house.open()
    await stream.push(SPOKEN[: 2 * BYTES_PER_S])
    with pytest.raises(EngineFailed):
        await read(stream)
    assert house.engines.open_tickets() == 0


async def test_a_drain_tells_the_finals_of_all_that_came_then_that_the_server_leaves(build: Build) -> None:
    house = build()
    stream = await house.open()
    await stream.push(SPOKEN[: int(0.9 * BYTES_PER_S)])
    assert house.streams.drain() == 1
    events = await told_until_it_leaves(stream)
    assert len(finals(events)) == 1
    assert not any(isinstance(event, Closed) for event in events)
    with pytest.raises(ShuttingDown):
        await house.open()
    with pytest.raises(ShuttingDown):
        await stream.push(QUIET)


# -- coming back


async def test_a_client_that_was_cut_off_loses_and_doubles_nothing(build: Build) -> None:
    house = build(says_by_length())
    whole = finals(await heard(await house.open(StreamOptions(interim=False)), SPOKEN))
    stream = await house.open(StreamOptions(interim=False), resumable=True)
    await stream.push(SPOKEN[: 5 * BYTES_PER_S])
    seen: list[StreamEvent] = []
    last = 0
    async for told in stream.numbered():
        seen.append(told.event)
        last = told.number
        if len(finals(seen)) == 1:
            break
    stream.abort()
    assert not stream.over
    again = house.streams.resume(OWNER, stream.id, stream.token, after=last)
    assert again.received_bytes == 5 * BYTES_PER_S
    seen += await heard(again, SPOKEN[again.received_bytes :])
    assert finals(seen) == whole


async def test_events_that_were_told_but_not_received_are_told_again(build: Build) -> None:
    house = build()
    stream = await house.open(resumable=True)
    told = []

    async def read_all() -> None:
        async for one in stream.numbered():
            told.append(one)

    async with asyncio.TaskGroup() as group:
        group.create_task(read_all())
        await stream.push(SPOKEN)
        await stream.close()
    stream.abort()
    again = house.streams.resume(OWNER, stream.id, stream.token, after=2)
    assert [one async for one in again.numbered()] == [one for one in told if one.number > 2]


async def test_only_who_knows_the_token_can_resume(build: Build) -> None:
    house = build()
    stream = await house.open(resumable=True)
    stream.abort()
    with pytest.raises(NotFound):
        house.streams.resume(OWNER, stream.id, "guessed", after=0)
    with pytest.raises(NotFound):
        house.streams.resume(OWNER, "another", stream.token, after=0)
    with pytest.raises(Conflict):
        house.streams.resume(OWNER, stream.id, stream.token, after=7)
    with pytest.raises(NotFound):
        house.streams.resume(trusted("another"), stream.id, stream.token, after=0)
    house.streams.resume(OWNER, stream.id, stream.token, after=0)


async def test_whoever_still_holds_a_resumed_stream_is_told(build: Build) -> None:
    house = build()
    stream = await house.open(resumable=True)
    first = asyncio.create_task(read(stream))
    await asyncio.sleep(0)
    pushing = asyncio.create_task(stream.push(SPOKEN))  # more than may be unheard
    await asyncio.sleep(0)
    again = house.streams.resume(OWNER, stream.id, stream.token, after=0)
    with pytest.raises(Conflict):
        await first
    with pytest.raises(Conflict):
        await pushing
    with pytest.raises(Conflict):
        await stream.push(QUIET)
    stream.abort()  # as its connection does when it ends
    assert not again.over
    assert 0 < again.received_bytes < len(SPOKEN)
    assert len(finals(await heard(again, SPOKEN[again.received_bytes :]))) == SENTENCES


async def test_nobody_waits_for_ever_for_a_client_that_does_not_come_back(build: Build) -> None:
    house = build(grace_s=0.1)
    stream = await house.open(resumable=True)
    stream.abort()
    async with asyncio.timeout(LONGEST_WAIT_S):
        while not stream.over:  # noqa: ASYNC110 - a timer ends it
            await asyncio.sleep(0.01)
    with pytest.raises(NotFound):
        house.streams.resume(OWNER, stream.id, stream.token, after=0)
    assert house.engines.open_tickets() == 0


async def test_a_stream_is_booked_once_when_it_ends_however_it_ends(build: Build) -> None:
    house, accounts = build(), KeptAccounts()
    house.streams.keep_accounts(accounts)
    caller = replace(OWNER, key_id="key-1")
    whole = await house.open(door="deepgram", caller=caller)
    await whole.push(SPOKEN)
    await whole.close()
    async with asyncio.timeout(LONGEST_WAIT_S):
        assert isinstance([event async for event in whole.events()][-1], Closed)
    (heard,) = accounts.heard
    assert (heard.door, heard.work_class, heard.model, heard.caller.key_id) == (
        "deepgram",
        "live",
        whole.model.id,
        "key-1",
    )
    assert heard.audio_s == pytest.approx(len(SPOKEN) / BYTES_PER_S, abs=0.05)

    untold = await house.open()
    await untold.push(SPOKEN)
    await untold.close()
    async with asyncio.timeout(LONGEST_WAIT_S):
        assert [event async for event in untold.events()]
    assert len(accounts.heard) == 1, "of the server's own"


async def test_who_has_nothing_left_gets_no_stream(build: Build) -> None:
    house = build()
    house.streams.keep_accounts(KeptAccounts(used_up=True))
    with pytest.raises(QuotaExceeded):
        await house.open(door="native")
    assert house.streams.open_count == 0
