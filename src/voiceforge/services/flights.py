"""Identical work in progress is done once: who asks for it while it runs gets the same events.

A flight is one transcription, carried on by a task of its own; passengers are those who want it. It ends
early only when the last passenger has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import aclosing

from voiceforge.errors import Cancelled, VoiceForgeError
from voiceforge.speech.transcript.events import Finished, TranscribeEvent
from voiceforge.speech.transcript.types import Transcript
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)

Start = Callable[[], AsyncGenerator[TranscribeEvent, None]]
Keep = Callable[[Transcript], Awaitable[None]]


class Flights:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._in_progress: dict[Hashable, _Flight] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._in_progress

    async def events(
        self, key: Hashable, start: Start, keep: Keep, *, lends: bool
    ) -> AsyncGenerator[TranscribeEvent, None]:
        """The events of the flight under `key` from its beginning, which is now where there is none.

        Args:
            start: makes the events; the last one is `Finished`.
            keep: what to do with the document before the flight is forgotten; nobody aboard waits for it.
            lends: `start` needs something that goes when this call ends. Where this call began the flight and
                leaves it to others, it then does not end before the flight does.

        Raises:
            Exception: what stopped the flight, the same for all aboard.
        """
        flight = self._in_progress.get(key)
        lent = flight is None and lends
        if flight is None:
            flight = self._in_progress[key] = _Flight()
            flight.task = asyncio.create_task(self._fly(key, flight, start, keep))
        flight.aboard += 1
        try:
            told = 0
            while True:
                for event in flight.events[told:]:
                    told += 1
                    yield event
                if told < len(flight.events):
                    continue
                if flight.landed:
                    break
                await flight.news.wait()
            if flight.error is not None:
                raise flight.error
        finally:
            flight.aboard -= 1
            if not flight.landed and not flight.aboard:
                self._forget(key, flight)
                assert flight.task is not None
                flight.task.cancel()
                await ended(flight.task)
            elif not flight.landed and lent:
                assert flight.task is not None
                await ended(flight.task)

    async def _fly(self, key: Hashable, flight: _Flight, start: Start, keep: Keep) -> None:
        document: Finished | None = None
        try:
            async with aclosing(start()) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        document = event  # told when nothing is in use any more
                    else:
                        flight.tell(event)
            if document is None:
                raise Cancelled("the transcription was cancelled")
            flight.tell(document)
        except asyncio.CancelledError:
            flight.error = Cancelled("the transcription was cancelled")
            raise
        except Exception as error:
            flight.error = error
        finally:
            if flight.error is not None:
                self._forget(key, flight)  # who comes next tries anew
            flight.land()
        if document is not None and flight.error is None:
            try:
                await keep(document.transcript)
            except Exception as error:
                _log.error("result not kept", problem=type(error).__name__)  # its message may quote the text
            finally:
                self._forget(key, flight)

    def _forget(self, key: Hashable, flight: _Flight) -> None:
        if self._in_progress.get(key) is flight:
            del self._in_progress[key]


class _Flight:
    """error: known once it has landed, None where it went well."""

    def __init__(self) -> None:
        self.events: list[TranscribeEvent] = []
        self.news = asyncio.Event()
        self.aboard = 0
        self.landed = False
        self.error: Exception | None = None
        self.task: asyncio.Task[None] | None = None

    def tell(self, event: TranscribeEvent) -> None:
        self.events.append(event)
        self._wake()

    def land(self) -> None:
        self.landed = True
        self._wake()

    def _wake(self) -> None:
        waiting, self.news = self.news, asyncio.Event()
        waiting.set()


async def ended(work: asyncio.Future[None]) -> None:
    """Wait for the end of work that is being stopped, through any number of cancellations.

    Raises:
        CancelledError: as soon as the work is over, where this was cancelled meanwhile.
    """
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
    failure = None if work.cancelled() else work.exception()
    if failure is not None and not isinstance(failure, VoiceForgeError):
        raise failure
    if cancelled is not None:
        raise cancelled
