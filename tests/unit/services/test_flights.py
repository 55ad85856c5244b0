"""One run for identical work: who gets what, who may leave, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from voiceforge.errors import Cancelled, EngineFailed
from voiceforge.services.flights import Flights
from voiceforge.speech.transcript import Finished, Progress, TranscribeEvent, Transcript
from voiceforge.testing.scripted_services import spoken

DONE = Finished(spoken("done"))


@dataclass
class Work:
    """Events as the test lets them out; counts how often it began, and knows how it ended."""

    error: Exception | None = None
    steps: asyncio.Queue[TranscribeEvent | None] = field(default_factory=asyncio.Queue)
    began: int = 0
    stopped: int = 0
    finished: int = 0
    kept: list[Transcript] = field(default_factory=list)
    may_keep: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_keep.set()

    async def start(self) -> AsyncGenerator[TranscribeEvent, None]:
        self.began += 1
        try:
            while (event := await self.steps.get()) is not None:
                yield event
            if self.error is not None:
                raise self.error
            self.finished += 1
        finally:
            self.stopped += 1

    async def keep(self, transcript: Transcript) -> None:
        await self.may_keep.wait()
        self.kept.append(transcript)

    def let_out(self, *events: TranscribeEvent | None) -> None:
        for event in events:
            self.steps.put_nowait(event)


def board(
    flights: Flights, work: Work, key: str = "key", *, lends: bool = False
) -> asyncio.Task[list[TranscribeEvent]]:
    async def ride() -> list[TranscribeEvent]:
        async with aclosing(flights.events(key, work.start, work.keep, lends=lends)) as events:
            return [event async for event in events]

    return asyncio.create_task(ride())


async def settle() -> None:
    """Whatever can go on without the test has gone on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_who_comes_later_gets_all_events_from_the_first() -> None:
    flights, work = Flights(), Work()
    first = board(flights, work)
    work.let_out(Progress(1.0, 3.0))
    await settle()
    second = board(flights, work)
    work.let_out(Progress(2.0, 3.0))
    await settle()
    third = board(flights, work)
    work.let_out(DONE, None)
    assert await first == await second == await third == [Progress(1.0, 3.0), Progress(2.0, 3.0), DONE]
    assert (work.began, work.finished) == (1, 1)
    await settle()
    assert work.kept == [DONE.transcript]
    assert "key" not in flights


async def test_other_work_runs_by_itself() -> None:
    flights, work, other_work = Flights(), Work(), Work()
    one, other = board(flights, work, "one"), board(flights, other_work, "other")
    await settle()
    assert work.began == other_work.began == 1
    other_work.let_out(DONE, None)
    assert await other == [DONE]
    work.let_out(Progress(1.0, None), DONE, None)
    assert await one == [Progress(1.0, None), DONE]


async def test_the_document_comes_when_the_run_is_over() -> None:
    """What the run has borrowed is free again for whoever has the document."""
    flights, work = Flights(), Work()
    riding = board(flights, work)
    work.let_out(DONE)
    await settle()
    assert not riding.done()
    work.let_out(None)
    assert await riding == [DONE]
    assert work.stopped == 1


async def test_one_leaves_and_the_others_notice_nothing() -> None:
    flights, work = Flights(), Work()
    first, second = board(flights, work), board(flights, work)
    await settle()
    first.cancel()
    await settle()
    assert first.cancelled()
    assert work.stopped == 0
    work.let_out(DONE, None)
    assert await second == [DONE]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_when_all_have_left_the_work_stops(order: tuple[int, int]) -> None:
    flights, work = Flights(), Work()
    riders = [board(flights, work), board(flights, work)]
    await settle()
    for index in order:
        assert work.stopped == 0
        riders[index].cancel()
        await settle()
    assert (work.stopped, work.finished, work.kept) == (1, 0, [])
    assert "key" not in flights


async def test_who_comes_while_it_is_being_stopped_begins_anew() -> None:
    flights, work = Flights(), Work()
    first = board(flights, work)
    await settle()
    first.cancel()
    second = board(flights, work)
    await settle()
    assert work.began == 2
    work.let_out(DONE, None)
    assert await second == [DONE]


async def test_closing_the_events_waits_until_the_work_has_stopped() -> None:
    flights, stopping, may_stop = Flights(), asyncio.Event(), asyncio.Event()

    async def start() -> AsyncGenerator[TranscribeEvent, None]:
        try:
            yield Progress(0.0, None)
            await asyncio.Event().wait()
        finally:
            stopping.set()
            while not may_stop.is_set():  # a thread that cannot be interrupted
                try:
                    await may_stop.wait()
                except asyncio.CancelledError:
                    continue

    events = flights.events("key", start, Work().keep, lends=False)
    assert await anext(events) == Progress(0.0, None)
    closing = asyncio.create_task(events.aclose())
    await stopping.wait()
    for _ in range(3):
        closing.cancel()
        await settle()
        assert not closing.done()
    may_stop.set()
    with pytest.raises(asyncio.CancelledError):
        await closing


async def test_a_failure_is_everybodys_and_the_next_one_tries_anew() -> None:
    flights, work = Flights(), Work(error=EngineFailed("it broke"))
    riders = [board(flights, work) for _ in range(3)]
    work.let_out(Progress(1.0, None), None)
    results = await asyncio.gather(*riders, return_exceptions=True)
    assert results == [work.error] * 3
    assert work.kept == []
    again = board(flights, work)
    work.error = None
    work.let_out(DONE, None)
    assert await again == [DONE]
    assert work.began == 2


async def test_work_that_ends_without_a_document_is_told_as_cancelled() -> None:
    flights, work = Flights(), Work()
    riding = board(flights, work)
    work.let_out(None)
    with pytest.raises(Cancelled):
        await riding


async def test_who_lends_something_stays_until_the_others_do_not_need_it() -> None:
    flights, work = Flights(), Work()
    lender, other = board(flights, work, lends=True), board(flights, work, lends=True)
    await settle()
    for _ in range(3):
        lender.cancel()
        await settle()
        assert not lender.done()
    work.let_out(DONE, None)
    assert await other == [DONE]
    await settle()
    assert lender.cancelled()


async def test_who_lends_nothing_leaves_at_once_and_only_the_first_one_lends() -> None:
    flights, work = Flights(), Work()
    first, later = board(flights, work, lends=True), board(flights, work, lends=True)
    await settle()
    later.cancel()
    await settle()
    assert later.cancelled()
    work.let_out(DONE, None)
    assert await first == [DONE]


async def test_nobody_waits_for_keeping_and_who_comes_meanwhile_is_served() -> None:
    flights, work = Flights(), Work()
    work.may_keep.clear()
    first = board(flights, work)
    work.let_out(DONE, None)
    assert await first == [DONE]
    assert await board(flights, work) == [DONE]
    assert (work.began, work.kept) == (1, [])
    work.may_keep.set()
    await settle()
    assert len(work.kept) == 1
    assert "key" not in flights


async def test_events_nobody_reads_start_nothing() -> None:
    flights, work = Flights(), Work()
    await flights.events("key", work.start, work.keep, lends=False).aclose()
    assert (work.began, "key" in flights) == (0, False)
