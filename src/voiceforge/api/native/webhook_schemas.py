"""What is asked and told about webhooks and their deliveries."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from voiceforge.api.native.job_schemas import Cursor, Limit

EventType = Literal["transcription.completed", "transcription.failed", "transcription.cancelled"]
DeliveryState = Literal["waiting", "delivered", "failed"]

Url = Annotated[str, Field(max_length=8192, description="Where events are sent: http or https, public.")]


class NewWebhookIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: Url
    events: list[EventType] | None = Field(
        None, min_length=1, max_length=20, description="What it is told of; absent: everything."
    )


class WebhookChangeIn(BaseModel):
    """What is absent stays as it is."""

    model_config = ConfigDict(extra="forbid")

    url: Url | None = None
    events: list[EventType] | None = Field(None, min_length=1, max_length=20)
    enabled: bool | None = None


class RotateIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    overlap_s: float = Field(
        default=86_400.0,
        ge=0,
        le=30 * 86_400,
        description="For so long the secrets before it sign too; 0: from now on only the new one does.",
    )


class PageQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: Limit = 20
    cursor: Cursor | None = None


class DeliveriesQuery(PageQuery):
    status: DeliveryState | None = Field(None, description="Only these.")


class WebhookOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(description="`callbacks` for what signs the callbacks of requests.")
    url: str | None = Field(description="Null for `callbacks`: requests say where those go.")
    events: list[EventType]
    enabled: bool
    created_at: str


class NewWebhookOut(WebhookOut):
    secret: str = Field(description="Signs every message; it is not told again.")


class WebhookPageOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    data: list[WebhookOut] = Field(description="The newest first.")
    next_cursor: str | None = Field(description="Of the next page; null: this is the last.")


class AttemptOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    at: str
    status: int | None = Field(description="Of HTTP; null: there was no answer.")
    error: str | None = Field(description="A code; null: it was taken.")
    took_s: float | None


class DeliveryOut(BaseModel):
    """One event on its way to one receiver."""

    model_config = ConfigDict(extra="forbid")

    id: str
    event_id: str = Field(description="The `webhook-id` of every attempt.")
    event_type: str
    url: str
    status: DeliveryState
    attempts: int = Field(description="Since it was made, or replayed.")
    next_attempt_at: str | None = Field(description="Null: it is over, or being sent at this moment.")
    created_at: str
    finished_at: str | None
    log: list[AttemptOut] = Field(description="Every attempt, the oldest first; the last 100 are kept.")


class DeliveryPageOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    data: list[DeliveryOut] = Field(description="The newest first.")
    next_cursor: str | None = Field(description="Of the next page; null: this is the last.")
