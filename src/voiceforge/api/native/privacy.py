"""`/v1/privacy`: everything of a person, or of an organisation."""

from __future__ import annotations

import re
from dataclasses import asdict

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from voiceforge.api.http.auth import caller_of
from voiceforge.api.native.jobs import documented, json_reply
from voiceforge.errors import NotFound
from voiceforge.services.personal_data import PersonalData

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


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


def _known(text: str) -> str:
    if not _ID.fullmatch(text):
        raise NotFound("there is nobody of that id")
    return text
