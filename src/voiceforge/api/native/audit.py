"""`GET /v1/audit`: who did what, from where; page by page, or all of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from pydantic_core import to_json

from voiceforge.api.http.auth import caller_of
from voiceforge.api.native.jobs import documented, json_reply, read_query
from voiceforge.services.audit import COLUMNS, Audit, AuditEntry, AuditFilter, csv_line, csv_row, document

_MEDIA = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}


def _actions(text: str) -> str:
    if not 0 < len(text.split(",")) <= 20 or any(not name for name in text.split(",")):
        raise ValueError("should be at most 20 names, between commas")
    return text


class _Filter(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    action: Annotated[str, AfterValidator(_actions)] | None = Field(
        None,
        max_length=1000,
        description="Only these, between commas: `key.created`, or `key.` for all that begin so.",
    )
    actor: str | None = Field(None, max_length=40, description="Only what this user or key did.")
    target: str | None = Field(None, max_length=255, description="Only what was done to this.")
    since: AwareDatetime | None = Field(None, alias="from", description="Only from this time on.")
    until: AwareDatetime | None = Field(None, alias="to", description="Only before this time.")

    def wanted(self) -> AuditFilter:
        return AuditFilter(
            actions=tuple(self.action.split(",")) if self.action is not None else (),
            actor_id=self.actor,
            target=self.target,
            since=self.since.timestamp() if self.since is not None else None,
            until=self.until.timestamp() if self.until is not None else None,
        )


class AuditQuery(_Filter):
    limit: int = Field(20, ge=1, le=100, description="At most so many.")
    cursor: int | None = Field(None, ge=1, le=2**53, description="`next_cursor` of the page before.")


class AuditExportQuery(_Filter):
    format: Literal["jsonl", "csv"] = Field("jsonl", description="One JSON object a line, or CSV.")


class ActorOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["user", "key", "owner", "server", "nobody"] = Field(
        description="`owner`: with the key of the settings, or where none is asked for; `nobody`: not let in."
    )
    id: str | None


class AuditEntryOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tenant: str
    number: int = Field(description="Of the tenant's entries, from 1, without gaps.")
    at: str
    actor: ActorOut
    address: str | None
    request_id: str | None
    action: str
    target: str | None = Field(description="The id of what it was done to.")
    details: dict[str, Any]
    hash: str = Field(description="Over all of this and the hash of the entry before.")


class AuditPageOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    data: list[AuditEntryOut]
    next_cursor: int | None = Field(description="`cursor` of the next page; null: this is the last.")


def router(audit: Audit) -> APIRouter:
    routes = APIRouter(prefix="/v1/audit", tags=["Audit"])

    @routes.get("", response_model=AuditPageOut, **documented(AuditQuery))
    async def entries(request: Request) -> Response:
        """What was done in your organisation, the newest first."""
        query = read_query(request, AuditQuery)
        found = await audit.list(
            caller_of(request), query.wanted(), before=query.cursor, limit=query.limit + 1
        )
        shown = found[: query.limit]
        following = shown[-1].number if len(found) > query.limit else None
        return json_reply({"data": [_document(one) for one in shown], "next_cursor": following})

    export = documented(AuditExportQuery)
    export["responses"][200] = {
        "description": "All of them, in order, as they are read.",
        "content": {media.partition(";")[0]: {"schema": {"type": "string"}} for media in _MEDIA.values()},
    }

    @routes.get("/export", response_class=StreamingResponse, **export)
    async def all_entries(request: Request) -> Response:
        """The whole log, oldest first, with what its hashes can be checked by."""
        query = read_query(request, AuditExportQuery)
        lines = audit.export(caller_of(request), query.wanted())
        written = _as_csv(lines) if query.format == "csv" else _as_jsonl(lines)
        name = f"audit.{query.format}"
        return StreamingResponse(
            written,
            media_type=_MEDIA[query.format],
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    return routes


def _document(entry: AuditEntry) -> dict[str, Any]:
    told = document(entry, None)
    del told["previous"]
    return told


async def _as_jsonl(lines: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[bytes, None]:
    async for line in lines:
        yield to_json(line) + b"\n"


async def _as_csv(lines: AsyncGenerator[dict[str, Any], None]) -> AsyncGenerator[bytes, None]:
    yield csv_line(COLUMNS).encode()
    async for line in lines:
        yield csv_row(line).encode()
