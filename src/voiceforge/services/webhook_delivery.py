"""Sending events to receivers: each is taken for a while, sent, and written down; what was not taken is sent
again later, what was being sent when its process died by another. At least once, always with the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voiceforge.errors import Unavailable, VoiceForgeError
from voiceforge.infra.db import deliveries, webhooks
from voiceforge.infra.db.records import DeliveryAttempt, DeliveryClaim, DeliveryStatus
from voiceforge.infra.jobqueue.base import Lane, Task, TaskKind
from voiceforge.infra.webhooks.signing import signed_headers
from voiceforge.services.webhook_events import message
from voiceforge.services.webhook_schedule import pause_s
from voiceforge.telemetry.logger import Logger

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from voiceforge.infra.db.database import Database
    from voiceforge.infra.jobqueue.base import JobQueue
    from voiceforge.infra.webhooks.base import WebhookSender
    from voiceforge.services.job_sweep import Workplace
    from voiceforge.telemetry.metrics import Metrics

_log = Logger(__name__)

_GONE = 410
_DISABLED = "webhook_disabled"
_MOST_LOOKED_AT = 1000
_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class DeliveryRules:
    """lease_s: until whoever sends is taken for dead; well above the time that sending may take. per_host:
    deliveries that one process has under way to one host at a time."""

    lease_s: float = 40.0
    per_host: int = 4


class WebhookDelivery:
    """Args:
    callback_secret: signs callbacks in place of each tenant's own.
    clock: Unix seconds. chance: in [0, 1), spreads the attempts.
    """

    def __init__(
        self,
        *,
        database: Database,
        sender: WebhookSender,
        queue: JobQueue,
        workplace: Workplace,
        metrics: Metrics,
        rules: DeliveryRules = DeliveryRules(),  # frozen
        callback_secret: str | None = None,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._database = database
        self._sender = sender
        self._queue = queue
        self._workplace = workplace
        self._metrics = metrics
        self._rules = rules
        self._callback_secret = callback_secret
        self._clock = clock
        self._chance = chance
        self._under_way: Counter[str] = Counter()

    async def run_next(self) -> bool:
        """Take what is due for longest and send it; False: nothing is, or all of it is for hosts that have
        enough to do.

        Raises:
            Unavailable: the database does not answer.
        """
        claim = await self.take()
        if claim is None:
            return False
        await self.send(claim)
        return True

    async def run(self, delivery_id: str) -> bool:
        """Likewise this one; False: it is not due.

        Raises:
            Unavailable
        """
        async with self._database.transaction() as connection:
            claim = await deliveries.claim(
                connection,
                delivery_id,
                worker=str(self._workplace),
                now=self._clock(),
                lease_s=self._rules.lease_s,
            )
        if claim is None:
            return False
        self._under_way[claim.delivery.host] += 1
        await self.send(claim)
        return True

    async def take(self) -> DeliveryClaim | None:
        """What is due for longest, for `send`, which must follow. Not to be called twice at the same time.

        Raises:
            Unavailable
        """
        async with self._database.transaction() as connection:
            claim = await deliveries.claim_next(
                connection,
                worker=str(self._workplace),
                now=self._clock(),
                lease_s=self._rules.lease_s,
                but_not=self._busy_hosts(),
            )
        if claim is not None:
            self._under_way[claim.delivery.host] += 1
        return claim

    async def send(self, claim: DeliveryClaim) -> None:
        """Ends with it written as delivered, failed or put off, or with it left to whom takes it next."""
        try:
            if claim.webhook.enabled:
                attempt, retry_after_s = await self._try(claim)
            else:
                attempt, retry_after_s = DeliveryAttempt(self._clock(), None, _DISABLED, None), None
            await self._write(claim, attempt, retry_after_s)
        except asyncio.CancelledError:  # the process is on its way out
            with contextlib.suppress(Unavailable):
                async with self._database.transaction() as connection:
                    await deliveries.give_back(connection, claim, self._clock())
            raise
        finally:
            self._under_way[claim.delivery.host] -= 1
            if not self._under_way[claim.delivery.host]:
                del self._under_way[claim.delivery.host]

    async def sweep(self) -> None:
        """What dead processes of this machine were sending is due at once; the queue is told of all that is
        due.

        Raises:
            Unavailable
        """
        now = self._clock()
        async with self._database.reading() as connection:
            sending = await deliveries.sending(connection, _MOST_LOOKED_AT)
        lost = [(one, worker) for one, worker in sending if worker and self._workplace.saw_die(worker)]
        if lost:
            _log.warning("deliveries of a dead process go on", count=len(lost))
            async with self._database.transaction() as connection:
                for delivery_id, worker in lost:
                    await deliveries.make_due(connection, delivery_id, worker, now)
        async with self._database.reading() as connection:
            due = await deliveries.due(connection, now, _MOST_LOOKED_AT)
            self._metrics.webhooks_waiting(await deliveries.count_waiting(connection))
        await self._queue.offer([Task(TaskKind.DELIVERY, one, Lane.MAINTENANCE) for one in due])

    async def any_due(self) -> bool:
        """Whether it is worth to `take`.

        Raises:
            Unavailable
        """
        async with self._database.reading() as connection:
            return bool(await deliveries.due(connection, self._clock(), 1, but_not=self._busy_hosts()))

    def _busy_hosts(self) -> Collection[str]:
        return [host for host, count in self._under_way.items() if count >= self._rules.per_host]

    async def _try(self, claim: DeliveryClaim) -> tuple[DeliveryAttempt, float | None]:
        """What came of it, and how long the receiver asks us to wait."""
        now = self._clock()
        body = message(claim.event)
        headers = signed_headers(claim.event.id, int(now), body, self._secrets(claim, now))
        began = time.monotonic()
        status = retry_after_s = None
        try:
            receipt = await self._sender.send(claim.delivery.url, headers, body)
            status, retry_after_s = receipt.status, receipt.retry_after_s
            error = None if 200 <= status < 300 else "refused"
        except VoiceForgeError as failure:
            error = failure.code
        except Exception:
            _log.exception("a delivery stumbled", delivery=claim.delivery.id)
            error = "internal_error"
        took_s = round(time.monotonic() - began, 3)
        return DeliveryAttempt(now, status, error, took_s), retry_after_s

    def _secrets(self, claim: DeliveryClaim, now: float) -> list[str]:
        if claim.webhook.url is None and self._callback_secret is not None:
            return [self._callback_secret]
        return [one.secret for one in claim.webhook.secrets if one.until is None or one.until > now]

    async def _write(
        self, claim: DeliveryClaim, attempt: DeliveryAttempt, retry_after_s: float | None
    ) -> None:
        """For as long as it is ours. Where the database does not take it, it is sent once more."""
        wait_s = None
        if attempt.error is not None and attempt.error != _DISABLED and attempt.status != _GONE:
            wait_s = pause_s(claim.delivery.attempts, self._chance(), retry_after_s)
        while True:
            try:
                async with self._database.transaction() as connection:
                    written = await self._note(connection, claim, attempt, wait_s)
                break
            except Unavailable:
                if self._clock() >= claim.until:
                    return
                await asyncio.sleep(_PAUSE_S)
        if not written:
            return  # somebody else has it, or it was erased
        told = {"delivery": claim.delivery.id, "attempt": claim.delivery.attempts, "status": attempt.status}
        if attempt.error is None:
            self._metrics.observe_webhook("delivered")
            _log.info("event delivered", **told)
        elif wait_s is not None:
            self._metrics.observe_webhook("retried")
            _log.warning("event to be sent again", problem=attempt.error, in_s=round(wait_s, 1), **told)
        else:
            self._metrics.observe_webhook("failed")
            _log.warning("event not delivered", problem=attempt.error, **told)

    async def _note(
        self,
        connection: AsyncConnection,
        claim: DeliveryClaim,
        attempt: DeliveryAttempt,
        wait_s: float | None,
    ) -> bool:
        now = self._clock()
        if wait_s is not None:
            return await deliveries.put_off(connection, claim, attempt, now + wait_s)
        if (
            attempt.status == _GONE and claim.webhook.url is not None
        ):  # before the delivery: one order of locks
            await webhooks.disable(connection, claim.webhook.id)
            _log.warning("webhook disabled: its receiver says it is gone", webhook=claim.webhook.id)
        status = DeliveryStatus.DELIVERED if attempt.error is None else DeliveryStatus.FAILED
        return await deliveries.end(connection, claim, status, attempt, now)
