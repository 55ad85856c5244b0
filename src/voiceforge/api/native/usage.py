"""`GET /v1/usage`: what the caller's tenant used, as JSON or CSV."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from voiceforge.api.http.auth import caller_of
from voiceforge.api.native.jobs import documented, json_reply, read_query
from voiceforge.services.usage import COLUMNS, Usage, UsageReport, UsageRow, as_csv


def _grouped(text: str) -> str:
    names = text.split(",")
    if len(set(names)) != len(names) or not set(names) <= set(COLUMNS):
        raise ValueError(f"should be some of {', '.join(COLUMNS)}, between commas")
    return text


class UsageQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    first: date | None = Field(
        None, alias="from", description="First day, in UTC; unset: the first of the month of `to`."
    )
    last: date | None = Field(None, alias="to", description="Last day, included; unset: today.")
    by: Annotated[str, AfterValidator(_grouped)] = Field(
        "day", description="What rows are for: some of day, model, key, user, door and class, between commas."
    )
    key: str | None = Field(None, max_length=40, description="Only what came with this key.")
    model: str | None = Field(None, max_length=255, description="Only this model.")
    door: str | None = Field(None, max_length=20, description="Only what came by this door.")
    format: Literal["json", "csv"] | None = Field(
        None, description="`json` or `csv`; unset: as `Accept` says, else JSON."
    )


class UsageRowOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    day: str | None = Field(None, description="In UTC; where it was grouped by.")
    model: str | None = Field(None, description="Likewise.")
    key: str | None = Field(None, description="Likewise; empty: none.")
    user: str | None = Field(None, description="Likewise; empty: nobody's own.")
    door: str | None = Field(None, description="`native`, `openai`, `deepgram` or `wyoming`; likewise.")
    class_: str | None = Field(None, alias="class", description="`live`, `interactive` or `bulk`; likewise.")
    requests: int = Field(description="Recordings and streams.")
    cached: int = Field(description="Of them, those answered from an earlier result.")
    audio_seconds: float
    latency_seconds: float | None = Field(
        description="From request to result, on average; null: nothing was."
    )
    cost: float | None = Field(description="By the server's prices; null where there is none.")


class UsageOut(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    first: str = Field(alias="from")
    last: str = Field(alias="to")
    currency: str
    total: UsageRowOut
    data: list[UsageRowOut]


def router(usage: Usage) -> APIRouter:
    routes = APIRouter(prefix="/v1/usage", tags=["Usage"])

    @routes.get("", response_model=UsageOut, **_documented())
    async def show(request: Request) -> Response:
        """What your organisation used, without what is being worked on."""
        query = read_query(request, UsageQuery)
        report = await usage.report(
            caller_of(request),
            first=query.first,
            last=query.last,
            by=query.by.split(","),
            key_id=query.key,
            model=query.model,
            door=query.door,
        )
        accept = request.headers.get("accept", "")
        if (query.format or ("csv" if accept.startswith("text/csv") else "json")) == "csv":
            name = f"usage-{report.first}-{report.last}.csv"
            return Response(
                as_csv(report),
                media_type="text/csv; charset=utf-8",
                headers={"Content-Disposition": f'attachment; filename="{name}"'},
            )
        return json_reply(_document(report))

    return routes


def _documented() -> dict[str, Any]:
    told = documented(UsageQuery)
    table = {"schema": {"type": "string"}}
    told["responses"][200] = {"description": "Rows and their sum.", "content": {"text/csv": table}}
    return told


def _document(report: UsageReport) -> dict[str, Any]:
    return {
        "from": report.first.isoformat(),
        "to": report.last.isoformat(),
        "currency": report.currency,
        "total": _row(report.total),
        "data": [_row(row) for row in report.rows],
    }


def _row(row: UsageRow) -> dict[str, Any]:
    return {
        **row.group,
        "requests": row.requests,
        "cached": row.cached,
        "audio_seconds": round(row.audio_s, 3),
        "latency_seconds": None if row.latency_s is None else round(row.latency_s, 3),
        "cost": None if row.cost is None else round(float(row.cost), 6),
    }
