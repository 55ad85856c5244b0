"""Webhooks as their owners see them: made, shown, changed, tried out, and what became of each event."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from voiceforge.errors import Conflict, InvalidRequest, NotFound, UnsupportedOption, UrlRefused
from voiceforge.infra.db import deliveries, events
from voiceforge.infra.db import webhooks as rows
from voiceforge.infra.db.database import Database, after_commit
from voiceforge.infra.db.records import Delivery, DeliveryStatus, Webhook, WebhookSecret
from voiceforge.infra.jobqueue.base import JobQueue, Lane, Task, TaskKind
from voiceforge.infra.webhooks.base import WebhookSender
from voiceforge.infra.webhooks.signing import new_secret
from voiceforge.services.access import Caller, Scope
from voiceforge.services.audit import record
from voiceforge.services.webhook_events import EVENT_TYPES, TEST_EVENT, host_of, new_webhook

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["CALLBACKS", "EVENT_TYPES", "Delivery", "DeliveryStatus", "NewWebhook", "Webhook", "Webhooks"]

CALLBACKS = "callbacks"
"""In place of an id: what signs the callbacks that requests name."""
OVERLAP_S = 86_400.0
_MOST_PER_TENANT = 100
_MOST_LISTED = 101
"""A page of 100, and one more that tells whether there is another."""
_MOST_SECRETS = 5
"""That sign at the same time: headers have their limits."""


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """A webhook with the secret that it has just got; nobody is told it again."""

    webhook: Webhook
    secret: str


class Webhooks:
    """Args:
    fixed_signer: the secret of callbacks comes from the settings.
    clock: Unix seconds.
    """

    def __init__(
        self,
        *,
        database: Database,
        sender: WebhookSender,
        queue: JobQueue,
        fixed_signer: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._sender = sender
        self._queue = queue
        self._fixed_signer = fixed_signer
        self._clock = clock

    async def check_callback(self, url: str) -> None:
        """
        Raises:
            UrlRefused: we do not call this.
        """
        await self._check(url, "callback_url")

    async def add(self, caller: Caller, url: str, event_types: Sequence[str] = EVENT_TYPES) -> NewWebhook:
        """
        Raises:
            UrlRefused, UnsupportedOption, InvalidRequest, Unavailable
            Conflict: there are too many.
        """
        tenant = caller.needs(Scope.WEBHOOKS)
        wanted = _known(event_types)
        await self._check(url, "url")
        made = new_webhook(tenant, url, wanted, self._clock())
        async with self._database.transaction() as connection:
            if await rows.count(connection, tenant) >= _MOST_PER_TENANT:
                raise Conflict(f"there are {_MOST_PER_TENANT} webhooks; delete one first")
            await rows.add(connection, made)
            await record(connection, caller, "webhook.added", made.id, events=wanted)
        return NewWebhook(made, made.secrets[0].secret)

    async def list(self, caller: Caller, *, before: str | None = None, limit: int = 20) -> Sequence[Webhook]:
        """The newest first, at most `limit` (up to 101) of those made before the one with id `before`; not
        the signer of callbacks."""
        tenant = caller.needs(Scope.WEBHOOKS)
        async with self._database.reading() as connection:
            return await rows.newest(connection, tenant, before=before, limit=min(limit, _MOST_LISTED))

    async def show(self, caller: Caller, webhook_id: str) -> Webhook:
        """
        Raises:
            NotFound, Unavailable
        """
        tenant = caller.needs(Scope.WEBHOOKS)
        async with self._opened(webhook_id) as connection:
            return await self._get(connection, tenant, webhook_id)

    async def change(
        self,
        caller: Caller,
        webhook_id: str,
        *,
        url: str | None = None,
        event_types: Sequence[str] | None = None,
        enabled: bool | None = None,
    ) -> Webhook:
        """What is None stays as it is. What waits to be sent goes to the new URL.

        Raises:
            NotFound, UrlRefused, UnsupportedOption, InvalidRequest, Unavailable
        """
        tenant = caller.needs(Scope.WEBHOOKS)
        if webhook_id == CALLBACKS and (url is not None or event_types is not None):
            raise InvalidRequest(
                "callbacks go where requests say, about those requests; they can be enabled and disabled",
                field="url" if url is not None else "events",
            )
        wanted = None if event_types is None else _known(event_types)
        if url is not None:
            await self._check(url, "url")
        async with self._database.transaction() as connection:
            webhook = await self._get(connection, tenant, webhook_id, lock=True)
            changed = replace(
                webhook,
                url=webhook.url if url is None else url,
                event_types=webhook.event_types if wanted is None else wanted,
                enabled=webhook.enabled if enabled is None else enabled,
            )
            await rows.change(connection, changed)
            if url is not None:
                await deliveries.move(connection, webhook.id, url, host_of(url))
            await record(
                connection, caller, "webhook.changed", webhook.id, fields=_differing(webhook, changed)
            )
        return changed

    async def remove(self, caller: Caller, webhook_id: str) -> None:
        """With its deliveries, also those that wait.

        Raises:
            NotFound, Unavailable
            InvalidRequest: it is what signs callbacks.
        """
        tenant = caller.needs(Scope.WEBHOOKS)
        if webhook_id == CALLBACKS:
            raise InvalidRequest("what signs callbacks cannot be deleted; disable it")
        async with self._database.transaction() as connection:
            webhook = await self._get(connection, tenant, webhook_id, lock=True)
            await rows.forget(connection, webhook.id)
            await record(connection, caller, "webhook.removed", webhook.id)

    async def rotate(self, caller: Caller, webhook_id: str, overlap_s: float = OVERLAP_S) -> NewWebhook:
        """A new secret; the ones before it sign beside it for so many seconds, unless they were to end
        sooner.

        Raises:
            NotFound, Unavailable
            Conflict: the secret comes from the settings.
        """
        tenant = caller.needs(Scope.WEBHOOKS)
        if webhook_id == CALLBACKS and self._fixed_signer:
            raise Conflict("the secret of callbacks is set by webhooks.callback_secret")
        now = self._clock()
        fresh = new_secret()
        async with self._database.transaction() as connection:
            webhook = await self._get(connection, tenant, webhook_id, lock=True)
            until = now + overlap_s
            before = [
                WebhookSecret(one.secret, until if one.until is None else min(one.until, until))
                for one in webhook.secrets
                if (one.until is None or one.until > now) and overlap_s > 0
            ]
            changed = replace(webhook, secrets=(WebhookSecret(fresh), *before[: _MOST_SECRETS - 1]))
            await rows.change(connection, changed)
            await record(connection, caller, "webhook.rotated", webhook.id, overlap_s=int(overlap_s))
        return NewWebhook(changed, fresh)

    async def test(self, caller: Caller, webhook_id: str) -> Delivery:
        """Send an event of no meaning.

        Raises:
            NotFound, Unavailable
            Conflict: it is disabled.
            InvalidRequest: it is what signs callbacks, and leads nowhere by itself.
        """
        tenant = caller.needs(Scope.WEBHOOKS)
        now = self._clock()
        async with self._database.transaction() as connection:
            webhook = await self._get(connection, tenant, webhook_id, lock=True)
            if webhook.url is None:
                raise InvalidRequest("callbacks go where requests say: there is no URL to try")
            if not webhook.enabled:
                raise Conflict("this webhook is disabled")
            event = await events.add(connection, tenant, TEST_EVENT, {"webhook_id": webhook.id}, now=now)
            made = await deliveries.add(connection, webhook, event, webhook.url, host_of(webhook.url))
            self._tell(connection, made)
            return await self._delivery(connection, webhook, made)

    async def deliveries(
        self,
        caller: Caller,
        webhook_id: str,
        *,
        status: DeliveryStatus | None = None,
        before: str | None = None,
        limit: int = 20,
    ) -> Sequence[Delivery]:
        """The newest first, at most `limit` (up to 101) of those made before the one with id `before`.

        Raises:
            NotFound, Unavailable
        """
        tenant = caller.needs(Scope.WEBHOOKS)
        async with self._opened(webhook_id) as connection:
            webhook = await self._get(connection, tenant, webhook_id)
            return await deliveries.newest(
                connection, tenant, webhook.id, status=status, before=before, limit=min(limit, _MOST_LISTED)
            )

    async def replay(self, caller: Caller, webhook_id: str, delivery_id: str) -> Delivery:
        """Send it again, as the same event, with all its attempts anew.

        Raises:
            NotFound, Unavailable
            Conflict: it is being sent at this moment, or the webhook is disabled.
        """
        tenant = caller.needs(Scope.WEBHOOKS)
        async with self._database.transaction() as connection:
            webhook = await self._get(connection, tenant, webhook_id, lock=True)
            delivery = await self._delivery(connection, webhook, delivery_id)
            if delivery.is_sending:
                raise Conflict("this delivery is being sent at this moment")
            if not webhook.enabled:
                raise Conflict("this webhook is disabled")
            url = webhook.url or delivery.url
            await deliveries.send_anew(connection, delivery.id, url, host_of(url), self._clock())
            self._tell(connection, delivery.id)
            return await self._delivery(connection, webhook, delivery_id)

    def _tell(self, connection: AsyncConnection, delivery_id: str) -> None:
        task = Task(TaskKind.DELIVERY, delivery_id, Lane.MAINTENANCE)
        after_commit(connection, lambda: self._queue.offer([task]))

    def _opened(self, webhook_id: str) -> AbstractAsyncContextManager[AsyncConnection]:
        """To read; what signs callbacks is made where it is first looked at."""
        return self._database.transaction() if webhook_id == CALLBACKS else self._database.reading()

    async def _check(self, url: str, field: str) -> None:
        try:
            await self._sender.check(url)
        except UrlRefused as error:
            raise UrlRefused(error.message, field=field, choices=error.choices) from error

    async def _get(
        self, connection: AsyncConnection, tenant: str, webhook_id: str, *, lock: bool = False
    ) -> Webhook:
        if webhook_id == CALLBACKS:
            found = await rows.signer(connection, tenant, lock=lock)
            return found or await rows.add_signer(connection, new_webhook(tenant, None, (), self._clock()))
        webhook = await rows.get(connection, tenant, webhook_id, lock=lock)
        if webhook is None:
            raise NotFound("there is no such webhook")
        return webhook

    async def _delivery(self, connection: AsyncConnection, webhook: Webhook, delivery_id: str) -> Delivery:
        found = await deliveries.get(connection, webhook.tenant, webhook.id, delivery_id, lock=True)
        if found is None:
            raise NotFound("there is no such delivery")
        return found


def _differing(before: Webhook, after: Webhook) -> list[str]:
    """The names of what was changed."""
    return [
        name for name in ("url", "event_types", "enabled") if getattr(before, name) != getattr(after, name)
    ]


def _known(event_types: Sequence[str]) -> tuple[str, ...]:
    """In the order in which we list them, each once."""
    for kind in event_types:
        if kind not in EVENT_TYPES:
            raise UnsupportedOption(
                f"{kind[:100]!r} is not one of: {', '.join(EVENT_TYPES)}", field="events", choices=EVENT_TYPES
            )
    if not event_types:
        raise InvalidRequest("name at least one event", field="events")
    return tuple(kind for kind in EVENT_TYPES if kind in event_types)
