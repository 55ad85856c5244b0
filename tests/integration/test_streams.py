"""Live streams with the embedded engine, its process and the process that decodes, as a server has them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from voiceforge.errors import DecoderCrashed
from voiceforge.infra.audiohost.keeper import AudioHostKeeper
from voiceforge.main.build import build, keep_audio_host, keep_hosts
from voiceforge.main.settings import Settings
from voiceforge.main.settings_streams import StreamSettings
from voiceforge.services.container import Services
from voiceforge.services.samples import sample_recordings
from voiceforge.services.streams import Stream, StreamRequest, Streams
from voiceforge.speech.audio.decode import open_audio
from voiceforge.speech.options import RawFormat, StreamOptions
from voiceforge.speech.transcript.stream_events import Closed, Final, StreamEvent
from voiceforge.testing.recordings import encode

LONGEST_WAIT_S = 60
SAID = "ever tried ever failed no matter try again fail again fail better"
BYTES_PER_S = 32_000


def _samples() -> np.ndarray:
    with open_audio(sample_recordings()[0]) as stream:
        return np.concatenate([block[0] for block in stream.blocks()])


BECKETT = _samples()
SPOKEN = (BECKETT * 32_767).astype("<i2").tobytes()


@pytest.fixture(scope="module")
def audio_host() -> Iterator[AudioHostKeeper]:
    with closing(keep_audio_host()) as keeper:
        yield keeper


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, audio_host: AudioHostKeeper) -> Iterator[Services]:
    settings = Settings(
        data_dir=Path(tmp_path_factory.mktemp("data")),
        streams=StreamSettings(max_lag_s=600),  # here all come at once, on purpose
    )
    with closing(keep_hosts(settings)) as hosts:
        made = build(settings, version="test", hosts=hosts, audio_host=audio_host.address, live=True)
        made.transcriptions.preload(settings.model)
        yield made
        made.engines.close(1.0)
        assert made.streams is not None
        made.streams.close()
        made.transcriptions.close()


@pytest.fixture
async def streams(services: Services) -> AsyncIterator[Streams]:
    assert services.streams is not None
    yield services.streams
    assert services.engines.open_tickets() == 0


async def heard(stream: Stream, audio: bytes, *, speed: float | None = None) -> list[StreamEvent]:
    """speed: times real time; None: as fast as it is taken."""

    async def push() -> None:
        for first in range(0, len(audio), 3_200):
            await stream.push(audio[first : first + 3_200])
            if speed is not None:
                await asyncio.sleep(3_200 / BYTES_PER_S / speed)
        await stream.close()

    async with asyncio.timeout(LONGEST_WAIT_S), asyncio.TaskGroup() as group:
        group.create_task(push())
        return [event async for event in stream.events()]


def finals(events: list[StreamEvent]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


def words(events: list[StreamEvent]) -> list[str]:
    return re.findall(r"[a-z]+", " ".join(final.text for final in finals(events)).lower())


def differing(one: list[str], other: list[str]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=False)) + abs(len(one) - len(other))


async def test_how_fast_audio_comes_changes_nothing_in_the_finals(streams: Streams) -> None:
    raw = StreamRequest(audio=RawFormat("s16le"))
    at_once = await heard(await streams.open(raw), SPOKEN)
    slowly = await heard(await streams.open(raw), SPOKEN, speed=4.0)
    assert finals(at_once) == finals(slowly)
    assert differing(words(at_once), SAID.split()) <= 2
    assert all(word.start < word.end for final in finals(at_once) for word in final.words)


async def test_many_streams_at_once_hear_the_same(streams: Streams) -> None:
    raw = StreamRequest(audio=RawFormat("s16le"), options=StreamOptions(interim_every_ms=500))
    told = await asyncio.gather(
        *[heard(await streams.open(raw), SPOKEN[: 4 * BYTES_PER_S]) for _ in range(24)]
    )
    assert len({tuple(words(events)) for events in told}) == 1
    assert all(isinstance(events[-1], Closed) for events in told)


@pytest.mark.parametrize(("kind", "rate_hz"), [("webm", 48_000), ("flac", 16_000)])
async def test_encoded_audio_is_decoded_in_a_process_of_its_own(
    streams: Streams, audio_host: AudioHostKeeper, kind: str, rate_hz: int
) -> None:
    audio = encode(np.repeat(BECKETT, rate_hz // 16_000)[:, None], rate_hz, kind)  # type: ignore[arg-type]
    assert audio
    events = await heard(await streams.open(StreamRequest()), audio)
    assert differing(words(events), SAID.split()) <= 3


async def test_a_decoder_that_is_killed_ends_its_own_stream_alone(
    streams: Streams, audio_host: AudioHostKeeper
) -> None:
    audio = encode(BECKETT[:, None], 16_000, "flac")
    assert audio
    before = set(psutil.Process(audio_host.pid).children())
    victim = await streams.open(StreamRequest())
    await victim.push(audio[: len(audio) // 2])
    async with asyncio.timeout(LONGEST_WAIT_S):
        while not victim.duration_s:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    members = set(psutil.Process(audio_host.pid).children()) - before
    for member in members or before:
        member.kill()
    other = await streams.open(StreamRequest(audio=RawFormat("s16le")))
    with pytest.raises(DecoderCrashed):
        await _push_until_it_fails(victim, audio[len(audio) // 2 :])
    assert len(finals(await heard(other, SPOKEN))) == 6


async def _push_until_it_fails(stream: Stream, audio: bytes) -> None:
    async with asyncio.timeout(LONGEST_WAIT_S):
        while True:
            await stream.push(audio)
            await asyncio.sleep(0.01)


async def test_minutes_of_silence_leave_nothing_behind(streams: Streams) -> None:
    """As fast as they are taken; memory is looked at after the first two."""
    stream = await streams.open(StreamRequest(audio=RawFormat("mulaw", 8_000)))
    minute = b"\xff" * (8_000 * 60)
    own = psutil.Process()
    for _ in range(2):
        await stream.push(minute)
    before = own.memory_info().rss
    for _ in range(8):
        await stream.push(minute)
    await stream.close()
    async with asyncio.timeout(LONGEST_WAIT_S):
        assert [event async for event in stream.events()] == [Closed(600.0)]
    assert own.memory_info().rss - before < 2 << 20
