"""Deliveries inside the serving process: one loop that takes what is due, and a task for each until it is
sent. A receiver that is slow takes up a few of them, the others go on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from voiceforge.errors import VoiceForgeError
from voiceforge.infra.db.records import DeliveryClaim
from voiceforge.infra.jobqueue.embedded import EmbeddedQueue
from voiceforge.services.webhook_delivery import WebhookDelivery
from voiceforge.telemetry.logger import Logger

_log = Logger(__name__)

_LOOK_EVERY_S = 1.0
"""For what another process wrote down, or what waits for its next attempt."""
_SWEEP_EVERY_S = 5.0


class WebhookWorkers:
    """Args:
    count: deliveries at a time.
    """

    def __init__(self, delivery: WebhookDelivery, queue: EmbeddedQueue, *, count: int) -> None:
        self._delivery = delivery
        self._queue = queue
        self._free = asyncio.Semaphore(count)
        self._sent = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled; then what was being sent is given back, for whoever comes next."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_after())
            rested = True
            while True:
                await self._free.acquire()
                self._sent.clear()
                claim = await self._next(look_first=rested)
                rested = claim is None
                if claim is not None:
                    group.create_task(self._send(claim))
                else:
                    self._free.release()
                    await self._rest()

    async def _next(self, *, look_first: bool) -> DeliveryClaim | None:
        claim = None
        with _told():
            # Looking costs less than taking, which is a transaction that writes.
            if not look_first or await self._delivery.any_due():
                claim = await self._delivery.take()
        return claim

    async def _send(self, claim: DeliveryClaim) -> None:
        try:
            with _told():
                await self._delivery.send(claim)
        finally:
            self._free.release()
            self._sent.set()  # its host may have more to come

    async def _rest(self) -> None:
        """Until there may be something to send."""
        waits = [
            asyncio.create_task(self._queue.wait(_LOOK_EVERY_S)),
            asyncio.create_task(self._sent.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    async def _look_after(self) -> None:
        while True:
            with _told():
                await self._delivery.sweep()
            await asyncio.sleep(_SWEEP_EVERY_S)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What fails is told and tried again later: workers outlive a database that does not."""
    try:
        yield
    except VoiceForgeError as error:
        _log.warning("deliveries wait", problem=error.code)
    except Exception:
        _log.exception("a delivery worker stumbled")
