"""Webhooks: made, shown, changed, tried out, and the log of what was sent to them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from voiceforge.api.http.auth import caller_of
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.http.forms import M, body_schema, parse
from voiceforge.api.http.uploads import Uploads
from voiceforge.api.native.job_convert import id_before, iso_time, known_id
from voiceforge.api.native.jobs import documented, json_reply, page, read_query
from voiceforge.api.native.webhook_schemas import (
    DeliveriesQuery,
    DeliveryOut,
    DeliveryPageOut,
    NewWebhookIn,
    NewWebhookOut,
    PageQuery,
    RotateIn,
    WebhookChangeIn,
    WebhookOut,
    WebhookPageOut,
)
from voiceforge.services.webhooks import (
    CALLBACKS,
    EVENT_TYPES,
    Delivery,
    DeliveryStatus,
    NewWebhook,
    Webhook,
    Webhooks,
)


def router(webhooks: Webhooks, config: HttpConfig) -> APIRouter:
    routes = APIRouter(prefix="/v1/webhooks", tags=["Webhooks"])
    uploads = Uploads(config.max_upload_bytes, config.upload_idle_s)

    async def body(request: Request, model: type[M]) -> M:
        return parse(model, await uploads.json_object(request))

    @routes.post("", status_code=201, response_model=NewWebhookOut, **taking(NewWebhookIn))
    async def add(request: Request) -> Response:
        """From now on, events are sent there. The answer is the only one that tells the secret."""
        asked = await body(request, NewWebhookIn)
        made = await webhooks.add(caller_of(request), asked.url, asked.events or EVENT_TYPES)
        return json_reply(_with_secret(made), 201, {"Location": f"/v1/webhooks/{made.webhook.id}"})

    @routes.get("", response_model=WebhookPageOut, **documented(PageQuery))
    async def list_webhooks(request: Request) -> Response:
        """The newest first, without what signs callbacks."""
        query = read_query(request, PageQuery)
        found = await webhooks.list(caller_of(request), before=id_before(query.cursor), limit=query.limit + 1)
        return json_reply(page([_document(one) for one in found], query.limit))

    @routes.get("/{webhook_id}", response_model=WebhookOut, **documented())
    async def show(webhook_id: str, request: Request) -> Response:
        """Without its secrets."""
        return json_reply(_document(await webhooks.show(caller_of(request), _known(webhook_id))))

    @routes.patch("/{webhook_id}", response_model=WebhookOut, **taking(WebhookChangeIn))
    async def change(webhook_id: str, request: Request) -> Response:
        """Another URL, other events, on or off. What waits to be sent goes to the new URL."""
        asked = await body(request, WebhookChangeIn)
        changed = await webhooks.change(
            caller_of(request),
            _known(webhook_id),
            url=asked.url,
            event_types=asked.events,
            enabled=asked.enabled,
        )
        return json_reply(_document(changed))

    @routes.delete("/{webhook_id}", status_code=204, response_class=Response, **documented())
    async def remove(webhook_id: str, request: Request) -> Response:
        """With the log of its deliveries, and those that wait."""
        await webhooks.remove(caller_of(request), _known(webhook_id))
        return Response(status_code=204)

    @routes.post(
        "/{webhook_id}/rotate",
        response_model=NewWebhookOut,
        **taking(RotateIn, required=False, conflict=True),
    )
    async def rotate(webhook_id: str, request: Request) -> Response:
        """A new secret, told this once; the ones before it sign beside it for `overlap_s`."""
        headers = request.headers
        empty = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        asked = RotateIn() if empty else await body(request, RotateIn)
        made = await webhooks.rotate(caller_of(request), _known(webhook_id), asked.overlap_s)
        return json_reply(_with_secret(made))

    @routes.post(
        "/{webhook_id}/test", status_code=202, response_model=DeliveryOut, **documented(conflict=True)
    )
    async def test(webhook_id: str, request: Request) -> Response:
        """Send an event of the type `webhook.test`; its delivery tells what came of it."""
        made = await webhooks.test(caller_of(request), _known(webhook_id))
        return json_reply(_delivery_document(made), 202)

    @routes.get("/{webhook_id}/deliveries", response_model=DeliveryPageOut, **documented(DeliveriesQuery))
    async def deliveries(webhook_id: str, request: Request) -> Response:
        """What was sent and what waits, the newest first, each with all its attempts."""
        query = read_query(request, DeliveriesQuery)
        found = await webhooks.deliveries(
            caller_of(request),
            _known(webhook_id),
            status=DeliveryStatus(query.status) if query.status else None,
            before=id_before(query.cursor),
            limit=query.limit + 1,
        )
        return json_reply(page([_delivery_document(one) for one in found], query.limit))

    @routes.post(
        "/{webhook_id}/deliveries/{delivery_id}/replay",
        status_code=202,
        response_model=DeliveryOut,
        **documented(conflict=True),
    )
    async def replay(webhook_id: str, delivery_id: str, request: Request) -> Response:
        """Send it again, as the same event, whatever came of it before."""
        wanted = known_id(delivery_id, "delivery")
        again = await webhooks.replay(caller_of(request), _known(webhook_id), wanted)
        return json_reply(_delivery_document(again), 202)

    return routes


def _known(text: str) -> str:
    """
    Raises:
        NotFound: we never gave such an id.
    """
    return text if text == CALLBACKS else known_id(text, "webhook")


def _with_secret(made: NewWebhook) -> dict[str, Any]:
    """A `NewWebhookOut`."""
    return _document(made.webhook) | {"secret": made.secret}


def _document(webhook: Webhook) -> dict[str, Any]:
    """A `WebhookOut`."""
    return {
        "id": webhook.id if webhook.url is not None else CALLBACKS,
        "url": webhook.url,
        "events": list(webhook.event_types if webhook.url is not None else EVENT_TYPES),
        "enabled": webhook.enabled,
        "created_at": iso_time(webhook.created_at),
    }


def _delivery_document(delivery: Delivery) -> dict[str, Any]:
    """A `DeliveryOut`."""
    waits = delivery.status is DeliveryStatus.WAITING and not delivery.is_sending
    return {
        "id": delivery.id,
        "event_id": delivery.event_id,
        "event_type": delivery.event_type,
        "url": delivery.url,
        "status": delivery.status.value,
        "attempts": delivery.attempts,
        "next_attempt_at": iso_time(delivery.available_at) if waits else None,
        "created_at": iso_time(delivery.created_at),
        "finished_at": iso_time(delivery.finished_at),
        "log": [
            {"at": iso_time(one.at), "status": one.status, "error": one.error, "took_s": one.took_s}
            for one in delivery.log
        ],
    }


def taking(body: type[BaseModel], *, required: bool = True, conflict: bool = False) -> dict[str, Any]:
    """`documented`, for a route that reads a body."""
    content = {"application/json": {"schema": body_schema(body)}}
    told = {"requestBody": {"required": required, "content": content}}
    return documented(conflict=conflict) | {"openapi_extra": told}
