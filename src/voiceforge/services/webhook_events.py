"""What webhooks can be told, and how a message to them reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import httpx
from pydantic_core import to_json

from voiceforge.infra.db.ids import new_id
from voiceforge.infra.db.records import Event, JobStatus, Webhook, WebhookSecret
from voiceforge.infra.webhooks.signing import new_secret

BATCH_EVENT = "batch.finished"
EVENT_TYPES = (*(f"transcription.{status}" for status in JobStatus if status.is_final), BATCH_EVENT)
TEST_EVENT = "webhook.test"
_MOST_HOST_CHARS = 300


def new_webhook(tenant: str, url: str | None, event_types: Sequence[str], now: float) -> Webhook:
    """With a secret of its own. url: None for what signs callbacks."""
    return Webhook(
        id=new_id("wh", now),
        tenant=tenant,
        url=url,
        event_types=tuple(event_types),
        secrets=(WebhookSecret(new_secret()),),
        enabled=True,
        created_at=now,
    )


def host_of(url: str) -> str:
    """Host and port, by which receivers are told apart."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return url[:_MOST_HOST_CHARS]
    return f"{parsed.host}:{parsed.port or (443 if parsed.scheme == 'https' else 80)}"[-_MOST_HOST_CHARS:]


def message(event: Event) -> bytes:
    """The body, the same each time that it is made."""
    when = datetime.fromtimestamp(event.created_at, UTC).isoformat(timespec="milliseconds")
    return to_json(
        {
            "id": event.id,
            "type": event.type,
            "timestamp": when.replace("+00:00", "Z"),
            "data": dict(event.data),
        }
    )
