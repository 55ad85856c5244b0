"""What is asked and told about transcriptions that are jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from voiceforge.api.native.schemas import PriorityName, SegmentOut, StoredText, TranscriptOut

Status = Literal["queued", "running", "completed", "failed", "cancelled"]
_MOST_LISTED = 100

Limit = Annotated[int, Field(ge=1, le=_MOST_LISTED, description="How many, at most.")]
Cursor = Annotated[
    str, Field(max_length=200, description="`next_cursor` of the page before; absent: the first page.")
]


class ListQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    status: Status | None = Field(None, description="Only these.")
    model: StoredText | None = Field(None, max_length=255, description="Only those by this model, by its id.")
    batch_id: str | None = Field(
        None, pattern=r"^[A-Za-z0-9_]{1,40}$", description="Only those of this batch."
    )
    created_after: datetime | None = Field(
        None, description="Only those made later; ISO 8601, UTC where it names no zone."
    )
    created_before: datetime | None = Field(None, description="Only those made earlier.")
    limit: Limit = 20
    cursor: Cursor | None = None


class SearchQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    q: StoredText = Field(
        min_length=1,
        max_length=500,
        description="Words that all occur in the text, in any order; `begin*` stands for all that begin so.",
    )
    limit: Limit = 20
    cursor: Cursor | None = None


class ResultQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: str | None = Field(
        None,
        max_length=40,
        description="json, verbose_json, txt, srt, vtt or tsv; absent: what `Accept` names, else json.",
    )


class JobErrorOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: str
    code: str
    message: str
    retryable: bool = Field(description="It may go well another time: `POST …/retry`.")


class JobModelOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    revision: str | None = Field(description="Null until it is completed.")


class JobOut(BaseModel):
    """A transcription that is worked on in its own time. All times are ISO 8601 in UTC."""

    model_config = ConfigDict(extra="forbid")

    id: str
    status: Status
    percent: float = Field(description="Of the audio, 0 to 100.")
    seconds_left: float | None = Field(description="Until it is done, as it looks now; null: not known.")
    queue_position: int | None = Field(
        description="How many wait before it, up to 1000; null where it does not wait, and in lists."
    )
    attempts: int = Field(description="That were begun, and came no further since.")
    priority: PriorityName
    model: JobModelOut
    filename: str | None
    duration: float | None = Field(description="Of the recording, in seconds; null: not known yet.")
    metadata: dict[str, Any]
    callback_url: str | None
    batch_id: str | None
    error: JobErrorOut | None = Field(description="Why it failed, or why the last attempt did.")
    cancel_requested: bool = Field(description="It is to stop, and may not have yet.")
    created_at: str
    started_at: str | None
    finished_at: str | None
    audio_erased_at: str | None = Field(description="Since then it cannot be tried again.")
    text_erased_at: str | None = Field(description="Since then there is no result.")


class CompletedJobOut(TranscriptOut, JobOut):  # type: ignore[misc]  # model and duration are there now
    """A completed job: the whole native result stands beside its status."""


class JobPageOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    data: list[JobOut] = Field(description="The newest first.")
    next_cursor: str | None = Field(description="Of the next page; null: this is the last.")


class FoundOut(JobOut):
    excerpt: str = Field(description="The text around what was found, which stands between « and ».")


class FoundPageOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    data: list[FoundOut] = Field(description="The newest first.")
    next_cursor: str | None


class ProgressOut(BaseModel):
    """The data of `progress`: how far it is. It has no id, and none is lost that matters."""

    model_config = ConfigDict(extra="forbid")

    id: str
    status: Status
    percent: float
    seconds_left: float | None
    duration: float | None
    queue_position: int | None
    attempts: int


class EventOut(BaseModel):
    """The data of the other events, which are kept and have a number as `id`."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(description="Of the transcription.")
    at: str = Field(description="When it happened, ISO 8601 in UTC.")
    status: Status | None = Field(None, description="With all but `transcription.chunk`, as what follows.")
    batch_id: str | None = None
    metadata: dict[str, Any] | None = None
    model: str | None = Field(None, description="Its id.")
    duration: float | None = Field(None, description="Of the recording, where it is known, in seconds.")
    error: JobErrorOut | None = Field(None, description="Only with `transcription.failed`.")
    chunk: int | None = Field(
        None,
        description="Only with `transcription.chunk`: which, from 0. One that was told before is replaced by "
        "this one, and all that came after that are void.",
    )
    start: float | None = Field(None, description="Where the chunk begins, in seconds.")
    end: float | None = Field(None, description="Up to where all is done with it, in seconds.")
    segments: list[SegmentOut] | None = Field(
        None,
        description="With `transcription.chunk` those of the chunk, with `transcription.completed` those "
        "that came after the last chunk.",
    )
