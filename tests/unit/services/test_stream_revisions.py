"""Which utterances are heard again, when, and by whom."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from voiceforge.errors import Overloaded, VoiceForgeError
from voiceforge.services.access import trusted
from voiceforge.services.recordings import AudioBytes
from voiceforge.services.stream_revisions import Reviser, Revisions, Wanted
from voiceforge.services.transcriptions import TranscribeRequest
from voiceforge.speech.engines.tickets import Priority
from voiceforge.speech.options import TranscribeOptions
from voiceforge.speech.transcript.stream_events import EndpointReason, Final, Revision
from voiceforge.speech.transcript.types import Coverage, ModelRef, Segment, Transcript, Word
from voiceforge.telemetry.metrics import Metrics

WAIT_S = 10
ME = trusted("me")


def final(
    utterance: int, start: float, end: float, reason: EndpointReason = "silence", channel: int = 0
) -> Final:
    segment = Segment(0, start, end, "roughly")
    return Final(channel, utterance, start, end, "roughly", (segment,), reason, None)


@dataclass
class House:
    """What is heard again waits until it is let go."""

    says: Callable[[], tuple[str, ...]] = lambda: ("exactly",)
    fails: VoiceForgeError | None = None
    late: bool = False
    asked: list[TranscribeRequest] = field(default_factory=list)
    read: list[tuple[int, float, float]] = field(default_factory=list)
    told: list[Revision] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    metrics: Metrics = field(default_factory=lambda: Metrics("test"))

    def __post_init__(self) -> None:
        self.reviser = Reviser(self.transcribe, self.metrics)

    def revisions(self) -> Revisions:
        return Revisions(
            self.reviser,
            Wanted("better", ME, lambda: self.late),
            options=lambda: TranscribeOptions(language="en", channels="split"),
            read=self.audio,
            tell=self.told.extend,  # type: ignore[arg-type]
        )

    def audio(self, channel: int, start: float, end: float) -> bytes:
        self.read.append((channel, start, end))
        return bytes(int((end - start) * 16_000) * 2)

    async def transcribe(self, request: TranscribeRequest) -> Transcript:
        self.asked.append(request)
        self.begun.set()
        await self.go.wait()
        if self.fails is not None:
            raise self.fails
        segments = tuple(
            Segment(number, 0.5, 1.0, text, words=(Word(text, 0.5, 1.0),))
            for number, text in enumerate(self.says())
        )
        return Transcript("", segments, 1.0, None, Coverage(0.0, 0.0), ModelRef("better", "1"))

    def count(self, outcome: str) -> float:
        counter = f'voiceforge_stream_revisions_total{{outcome="{outcome}"}}'
        lines = self.metrics.exposition()[0].decode().splitlines()
        return next((float(line.split()[1]) for line in lines if line.startswith(counter)), 0.0)


async def test_a_final_is_heard_again_at_once_as_the_least_urgent_work_there_is() -> None:
    house = House()
    house.go.set()
    revisions = house.revisions()
    revisions.add(final(3, 10.0, 12.0, channel=1))
    await revisions.all_told()
    (request,) = house.asked
    assert isinstance(request.source, AudioBytes)
    assert request.priority is Priority.BULK
    assert (request.model, request.caller, request.options.channels) == ("better", ME, "mix")
    assert house.read == [(1, pytest.approx(9.8), pytest.approx(12.2))]
    (revision,) = house.told
    assert (revision.channel, revision.first, revision.last, revision.text) == (1, 3, 3, "exactly")
    assert revision.segments[0].start == revision.segments[0].words[0].start == pytest.approx(10.3)
    assert revision.segments[0].channel == 1
    assert (house.count("told"), house.count("dropped")) == (1, 0)


async def test_what_waits_is_heard_together_as_far_as_it_fits_a_window() -> None:
    house = House()
    revisions = house.revisions()
    for number in range(8):
        revisions.add(final(number, 5.0 * number, 5.0 * number + 4))
        await asyncio.sleep(0)
    house.go.set()
    await revisions.all_told()
    spans = [(revision.first, revision.last) for revision in house.told]
    assert [first for first, _ in spans] == [0, *(last + 1 for _, last in spans[:-1])]
    assert spans[-1][1] == 7
    assert len(spans) < 8
    assert all(end - start <= 25.5 for _, start, end in house.read)


async def test_an_utterance_that_was_cut_waits_for_its_rest() -> None:
    house = House()
    house.go.set()
    revisions = house.revisions()
    revisions.add(final(0, 0.0, 6.0, "max_length"))
    await asyncio.sleep(0.05)
    assert house.asked == []
    revisions.add(final(1, 6.0, 8.0))
    await revisions.all_told()
    assert [(one.first, one.last) for one in house.told] == [(0, 1)]


async def test_one_that_was_cut_last_is_heard_at_the_end() -> None:
    house = House()
    house.go.set()
    revisions = house.revisions()
    revisions.add(final(0, 0.0, 6.0, "max_length"))
    await revisions.all_told()
    assert [(one.first, one.last) for one in house.told] == [(0, 0)]


async def test_while_finals_are_late_nothing_is_heard_again() -> None:
    house = House(late=True)
    house.go.set()
    revisions = house.revisions()
    revisions.add(final(0, 0.0, 2.0))
    await asyncio.sleep(0.3)
    assert house.asked == []
    house.late = False
    await revisions.all_told()
    assert len(house.told) == 1


async def test_what_waited_too_long_is_left_out() -> None:
    house = House(late=True)
    revisions = house.revisions()
    for number in range(40):
        revisions.add(final(number, 5.0 * number, 5.0 * number + 4))
    assert house.count("dropped") == 16
    revisions.stop()
    assert house.count("dropped") == 40


async def test_what_fails_or_hears_nothing_replaces_nothing_and_the_next_has_its_turn() -> None:
    house = House(fails=Overloaded("too much", retry_after_s=1))
    house.go.set()
    revisions = house.revisions()
    revisions.add(final(0, 0.0, 2.0))
    await revisions.all_told()
    house.fails, house.says = None, lambda: ()
    revisions.add(final(1, 3.0, 5.0))
    await revisions.all_told()
    assert house.told == []
    assert house.count("dropped") == 2
    house.says = lambda: ("exactly",)
    revisions.add(final(2, 6.0, 8.0))
    await revisions.all_told()
    assert [one.first for one in house.told] == [2]


async def test_one_stream_after_the_other() -> None:
    house = House()
    first, second = house.revisions(), house.revisions()
    for number in range(3):
        first.add(final(number, 20.0 * number, 20.0 * number + 15))
    second.add(final(9, 0.0, 2.0))
    await asyncio.sleep(0.05)
    assert len(house.asked) == 1
    house.go.set()
    await asyncio.gather(first.all_told(), second.all_told())
    assert [one.first for one in house.told] == [0, 9, 1, 2]


async def test_who_stops_is_told_nothing_more_and_gives_its_place_to_others() -> None:
    house = House()
    first, second = house.revisions(), house.revisions()
    first.add(final(0, 0.0, 2.0))
    async with asyncio.timeout(WAIT_S):
        await house.begun.wait()
        first.stop()
        second.add(final(1, 0.0, 2.0))
        house.go.set()
        await second.all_told()
    first.add(final(5, 9.0, 10.0))
    assert [one.first for one in house.told] == [1]
    await house.reviser.close()
