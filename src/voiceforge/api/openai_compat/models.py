"""`GET /v1/models` and `/v1/models/{id}`: OpenAI's shape, with what we know besides. Both surfaces use it."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any

from fastapi import APIRouter, Query

from voiceforge.api.openai_compat import schemas
from voiceforge.services.models import ModelInfo, Models

_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": schemas.ErrorOut, "description": "The API key is missing or wrong."},
    404: {"model": schemas.ErrorOut, "description": "There is no such model."},
    422: {"model": schemas.ErrorOut, "description": "A query parameter is wrong."},
}


def router(models: Models) -> APIRouter:
    routes = APIRouter(prefix="/v1/models", tags=["Models"], responses=_ERRORS)

    @routes.get("")
    def list_models(
        available: Annotated[bool, Query(alias="all", description="Also list what could be pulled.")] = False,
    ) -> schemas.ModelsOut:
        """The installed models."""
        found = models.list() if available else models.installed()
        return schemas.ModelsOut(data=[_model(info) for info in found])

    @routes.get("/{model_id:path}")
    def show_model(model_id: str) -> schemas.ModelOut:
        """One model by its id or alias; ids may contain `/`."""
        return _model(models.get(model_id))

    return routes


def _model(info: ModelInfo) -> schemas.ModelOut:
    known = {field.name: getattr(info, field.name) for field in fields(info)}
    return schemas.ModelOut.model_validate({**known, "owned_by": info.family})
