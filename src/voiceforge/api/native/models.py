"""What can be done with models while the server runs."""

from __future__ import annotations

from fastapi import APIRouter, Request

from voiceforge.api.http.auth import caller_of
from voiceforge.api.native import schemas
from voiceforge.services.access import Scope
from voiceforge.services.container import Services


def router(services: Services) -> APIRouter:
    routes = APIRouter(prefix="/v1/models", tags=["Models"])

    @routes.post("/{model_id:path}/reload", responses={404: {"description": "There is no such model here."}})
    def reload_model(model_id: str, request: Request) -> schemas.ReloadOut:
        """Load a model anew, from the files that are here now. With models in processes of their own the new
        one takes over when it is ready, and no request notices. For those who run the server."""
        caller_of(request).needs(Scope.TENANTS)
        found = services.models.require_installed(model_id)
        services.engines.renew(found)
        model = services.engines.queue(found).model
        return schemas.ReloadOut(id=model.id, revision=model.revision)

    return routes
