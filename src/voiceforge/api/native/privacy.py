"""`/v1/privacy`: everything of a person, or of an organisation."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from dataclasses import asdict

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from voiceforge.api.http.auth import caller_of
from voiceforge.api.native.jobs import documented, json_reply, read_query
from voiceforge.errors import NotFound
from voiceforge.services.personal_data import PersonalData

_TAR = "application/x-tar"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ExportQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    audio: bool = Field(False, description="With the recordings.")


class ErasedOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    transcriptions: int
    batches: int
    uploads: int
    streams: int = Field(description="Recordings of streams that were left behind.")
    rows: int = Field(description="Of an organisation: what else there was in the database.")
    person: bool = Field(description="There was somebody, or an organisation, of that id.")


def router(personal_data: PersonalData) -> APIRouter:
    routes = APIRouter(prefix="/v1/privacy", tags=["Privacy"])

    export = documented(ExportQuery)
    export["responses"][200] = {
        "description": "A tar file, as it is read.",
        "content": {_TAR: {"schema": {"type": "string", "format": "binary"}}},
    }

    @routes.get("/users/{user_id}/export", response_class=StreamingResponse, **export)
    async def export_person(user_id: str, request: Request) -> Response:
        """Everything of somebody: their rows, their transcripts, and their recordings where you wish."""
        query = read_query(request, ExportQuery)
        tar = await personal_data.export_person(caller_of(request), _known(user_id), audio=query.audio)
        return _download(tar)

    @routes.get("/tenants/{tenant_id}/export", response_class=StreamingResponse, **export)
    async def export_tenant(tenant_id: str, request: Request) -> Response:
        """Likewise, of everybody in an organisation."""
        query = read_query(request, ExportQuery)
        tar = await personal_data.export_tenant(caller_of(request), _known(tenant_id), audio=query.audio)
        return _download(tar)

    @routes.post("/users/{user_id}/erase", response_model=ErasedOut, **documented(conflict=True))
    async def erase_person(user_id: str, request: Request) -> Response:
        """Erase somebody: account, keys, transcriptions, uploads. Harmless where nothing is left."""
        erased = await personal_data.erase_person(caller_of(request), _known(user_id))
        return json_reply(asdict(erased))

    @routes.post("/tenants/{tenant_id}/erase", response_model=ErasedOut, **documented())
    async def erase_tenant(tenant_id: str, request: Request) -> Response:
        """Erase an organisation, with everybody in it. The one that runs the server keeps its people."""
        erased = await personal_data.erase_tenant(caller_of(request), _known(tenant_id))
        return json_reply(asdict(erased))

    return routes


def _download(tar: AsyncGenerator[bytes, None]) -> Response:
    headers = {"Content-Disposition": 'attachment; filename="data.tar"'}
    return StreamingResponse(tar, media_type=_TAR, headers=headers)


def _known(text: str) -> str:
    if not _ID.fullmatch(text):
        raise NotFound("there is nobody of that id")
    return text
