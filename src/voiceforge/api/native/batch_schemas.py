"""What is asked and told about batches."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from voiceforge.api.native.job_schemas import Cursor, JobOut, Limit, Status
from voiceforge.api.native.schemas import Options


class ItemOptions(Options):
    """One recording of a batch: the options of `POST /v1/transcriptions`. What it does not name is taken from
    the batch."""

    mode: Literal["async"] = "async"


class SharedOptions(ItemOptions):
    """What all recordings of a batch share; `metadata` is the batch's own, and `callback_url` is also told of
    the end of the batch."""

    url: None = Field(None, description="Stands in the items.")
    upload_id: None = Field(None, description="Stands in the items.")
    items: list[Any] | None = Field(
        None,
        description="JSON objects: a `url` or an `upload_id`, and any option that is to differ. Up to 1000.",
    )


class BatchQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: Limit = 20
    cursor: Cursor | None = None


class ItemsQuery(BatchQuery):
    """Of the items."""


class BatchCountsOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    queued: int
    running: int
    completed: int
    failed: int
    cancelled: int
    refused: int


class RefusedItemOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    index: int = Field(description="Which of the request's items, from 0.")
    kind: str
    code: str
    message: str
    field: str | None


class BatchOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    status: Status = Field(
        description="`running` once any is begun and until all are over; then `completed` if any is."
    )
    size: int = Field(description="How many items the request had.")
    counts: BatchCountsOut
    partial_failure: bool = Field(description="Some failed or were refused, and not all.")
    refused: list[RefusedItemOut] = Field(description="Items that became no transcription, and why.")
    metadata: dict[str, Any]
    callback_url: str | None
    created_at: str


class BatchItemOut(JobOut):
    index: int


class BatchWithItemsOut(BatchOut):
    items: list[BatchItemOut] = Field(description="Its transcriptions, in the order of the request.")
    next_cursor: str | None = Field(description="Of the next page of items; null: this is the last.")


class BatchPageOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    data: list[BatchOut] = Field(description="The newest first.")
    next_cursor: str | None
