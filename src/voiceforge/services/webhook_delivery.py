"""Sending events to receivers: each is taken for a while, sent, and written down; what was not taken is sent
again later, what was being sent when its process died by another. At least once, always with the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voiceforge.errors import StorageFull, Unavailable, VoiceForgeError
from voiceforge.infra.db import deliveries, recordings, results, transcriptions, webhooks
from voiceforge.infra.db.records import DeliveryAttempt, DeliveryClaim, DeliveryStatus, JobError, JobStatus
from voiceforge.infra.jobqueue.base import Lane, Task, TaskKind
from voiceforge.infra.webhooks.signing import signed_headers
from voiceforge.services.callback_shapes import CallbackNews, CallbackShape, Letter
from voiceforge.services.result_codec import ResultCodec
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


@dataclass(frozen=True, slots=True)
class _Tried:
    """retry_after_s: what the receiver asks for. shape: by whose rules it was sent; None: by ours."""

    attempt: DeliveryAttempt
    retry_after_s: float | None = None
    shape: CallbackShape | None = None


class WebhookDelivery:
    """Args:
    callback_secret: signs callbacks in place of each tenant's own.
    shapes: of the surfaces whose callbacks are in their own words, by name.
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
        shapes: Mapping[str, CallbackShape] | None = None,
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
        self._shapes = shapes or {}
        self._codec = ResultCodec()
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
                tried = await self._try(claim)
            else:
                tried = _Tried(DeliveryAttempt(self._clock(), None, _DISABLED, None))
            await self._write(claim, tried.attempt, self._wait_s(claim, tried))
        except asyncio.CancelledError:  # the process is on its way out
            with contextlib.suppress(Unavailable, StorageFull):
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

    async def _try(self, claim: DeliveryClaim) -> _Tried:
        now = self._clock()
        began = time.monotonic()
        status = retry_after_s = shape = None
        try:
            letter, shape = await self._letter(claim)
            headers = signed_headers(claim.event.id, int(now), letter.body, self._secrets(claim, now))
            receipt = await self._sender.send(claim.delivery.url, headers, letter.body, method=letter.method)
            status, retry_after_s = receipt.status, receipt.retry_after_s
            error = None if 200 <= status < 300 else "refused"
        except VoiceForgeError as failure:
            error = failure.code
        except Exception:
            _log.exception("a delivery stumbled", delivery=claim.delivery.id)
            error = "internal_error"
        took_s = round(time.monotonic() - began, 3)
        return _Tried(DeliveryAttempt(now, status, error, took_s), retry_after_s, shape)

    async def _letter(self, claim: DeliveryClaim) -> tuple[Letter, CallbackShape | None]:
        """Our own message, or for a callback in a surface's words that, with the surface's rules."""
        event = claim.event
        if claim.webhook.url is not None or event.transcription_id is None:
            return Letter(message(event)), None
        async with self._database.reading() as connection:
            job = await transcriptions.get(connection, event.tenant, event.transcription_id)
            asked = None if job is None else job.callback_shape
            shape = None if asked is None else self._shapes.get(asked["surface"])
            if job is None or asked is None or shape is None:
                return Letter(message(event)), None
            completed = event.type == f"transcription.{JobStatus.COMPLETED}"
            data = await results.get(connection, job.tenant, job.id) if completed else None
            recording = None
            if job.recording_id is not None:
                recording = await recordings.get(connection, job.tenant, job.recording_id)
        failure = event.data.get("error")
        transcript = None if data is None else await asyncio.to_thread(self._codec.unpack, job.id, data)
        news = CallbackNews(
            job=job,
            asked=asked["asked"],
            transcript=transcript,
            error=None if failure is None else JobError(**failure),
            sha256=None if recording is None else recording.sha256,
        )
        return await asyncio.to_thread(shape.letter, news), shape

    def _wait_s(self, claim: DeliveryClaim, tried: _Tried) -> float | None:
        """Until the next attempt; None: there is none."""
        attempt, attempts = tried.attempt, claim.delivery.attempts
        if attempt.error is None or attempt.error == _DISABLED or attempt.status == _GONE:
            return None
        if tried.shape is not None:
            return tried.shape.pause_s(attempts)
        return pause_s(attempts, self._chance(), tried.retry_after_s)

    def _secrets(self, claim: DeliveryClaim, now: float) -> list[str]:
        if claim.webhook.url is None and self._callback_secret is not None:
            return [self._callback_secret]
        return [one.secret for one in claim.webhook.secrets if one.until is None or one.until > now]

    async def _write(self, claim: DeliveryClaim, attempt: DeliveryAttempt, wait_s: float | None) -> None:
        """For as long as it is ours. Where the database does not take it, it is sent once more.

        Args:
            wait_s: until it is tried again; None: it is over.
        """
        while True:
            try:
                async with self._database.transaction() as connection:
                    written = await self._note(connection, claim, attempt, wait_s)
                break
            except (Unavailable, StorageFull):
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
