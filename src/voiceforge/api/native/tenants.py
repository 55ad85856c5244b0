"""Tenants, for those who run the server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from voiceforge.api.http.auth import caller_of
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.http.forms import M, parse, query_parameters
from voiceforge.api.http.uploads import Uploads
from voiceforge.api.native.accounts import told
from voiceforge.api.native.job_convert import id_before, iso_time, known_id
from voiceforge.api.native.jobs import json_reply, page, read_query
from voiceforge.api.native.user_schemas import (
    NewTenantIn,
    NewTenantOut,
    TenantChangeIn,
    TenantOut,
    TenantPageOut,
)
from voiceforge.api.native.users import handed_out_document
from voiceforge.api.native.webhook_schemas import PageQuery
from voiceforge.services.access import DEFAULT_TENANT
from voiceforge.services.people import People
from voiceforge.services.tenants import Tenant


def router(people: Callable[[], People], config: HttpConfig) -> APIRouter:
    """people: raises DependencyMissing where the packages for accounts are not installed."""
    routes = APIRouter(prefix="/v1/tenants", tags=["Tenants"])
    uploads = Uploads(config.max_upload_bytes, config.upload_idle_s)

    async def body(request: Request, model: type[M]) -> M:
        return parse(model, await uploads.json_object(request))

    listing = told()
    listing["openapi_extra"] = {"parameters": query_parameters(PageQuery)}

    @routes.get("", response_model=TenantPageOut, **listing)
    async def list_tenants(request: Request) -> Response:
        """The newest first; the one that runs the server at the end."""
        query = read_query(request, PageQuery)
        found = await people().tenants.list(
            caller_of(request), before=id_before(query.cursor), limit=query.limit + 1
        )
        return json_reply(page([_document(one) for one in found], query.limit))

    @routes.post("", status_code=201, response_model=NewTenantOut, **told(NewTenantIn))
    async def create(request: Request) -> Response:
        """Another tenant, and an invitation for its owner."""
        asked = await body(request, NewTenantIn)
        made, invitation = await people().tenants.create(
            caller_of(request), asked.name, asked.tier, asked.owner_email
        )
        document = _document(made) | {
            "invitation": None if invitation is None else handed_out_document(invitation)
        }
        return json_reply(document, 201, {"Location": f"/v1/tenants/{made.id}"})

    @routes.get("/{tenant_id}", response_model=TenantOut, **told())
    async def show(tenant_id: str, request: Request) -> Response:
        found = await people().tenants.show(caller_of(request), _known(tenant_id))
        return json_reply(_document(found))

    @routes.patch(
        "/{tenant_id}",
        response_model=TenantOut,
        **told(TenantChangeIn, conflict="It runs the server, and stays."),
    )
    async def change(tenant_id: str, request: Request) -> Response:
        """Another name or tier, or nobody of it may come in; in every process within a second."""
        asked = await body(request, TenantChangeIn)
        changed = await people().tenants.change(
            caller_of(request),
            _known(tenant_id),
            name=asked.name,
            tier=asked.tier,
            disabled=asked.disabled,
        )
        return json_reply(_document(changed))

    return routes


def _known(text: str) -> str:
    return text if text == DEFAULT_TENANT else known_id(text, "tenant")


def _document(tenant: Tenant) -> dict[str, Any]:
    """A `TenantOut`."""
    return {
        "id": tenant.id,
        "name": tenant.name,
        "tier": tenant.tier,
        "disabled": tenant.disabled_at is not None,
        "created_at": iso_time(tenant.created_at),
    }
