"""`/asyncapi.json`: the messages of our live streams in AsyncAPI 3.0, made from the classes that check them.

Source of the form: https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import JSONResponse

from voiceforge.api.native.stream_schemas import (
    CLIENT_MESSAGES,
    SERVER_MESSAGES,
    STREAM_PATH,
    ResumeQuery,
    StreamQuery,
)

_REF = "#/components/schemas/{model}"
_CHANNEL = "stream"
_AUDIO = "Audio"


def router(version: str) -> APIRouter:
    made = APIRouter()
    document = asyncapi_document(version)

    @made.get("/asyncapi.json", include_in_schema=False)
    async def asyncapi() -> JSONResponse:
        return JSONResponse(document)

    return made


def asyncapi_document(version: str) -> dict[str, Any]:
    models: tuple[type[BaseModel], ...] = (StreamQuery, ResumeQuery, *CLIENT_MESSAGES, *SERVER_MESSAGES)
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    sent = [_AUDIO, *_names(CLIENT_MESSAGES)]
    told = _names(SERVER_MESSAGES)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "VoiceForge live streams",
            "version": version,
            "description": "Audio in as binary messages, text out as JSON, while it is spoken.",
        },
        "channels": {
            _CHANNEL: {
                "address": STREAM_PATH,
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in (*sent, *told)},
                "bindings": {"ws": {"method": "GET", "query": {"$ref": _REF.format(model="StreamQuery")}}},
            }
        },
        "operations": {
            "hear": _operation("receive", "What the client sends.", sent),
            "tell": _operation("send", "What the server tells.", told),
        },
        "components": {
            "messages": {
                _AUDIO: {
                    "summary": "The next samples or bytes of the stream, cut anywhere.",
                    "contentType": "application/octet-stream",
                    "payload": {"type": "string", "format": "binary"},
                },
                **{
                    model.__name__: {
                        "summary": " ".join((model.__doc__ or "").split()) or _kind(model),
                        "contentType": "application/json",
                        "payload": {"$ref": _REF.format(model=model.__name__)},
                    }
                    for model in (*CLIENT_MESSAGES, *SERVER_MESSAGES)
                },
            },
            **{"schemas": schemas["$defs"]},
        },
    }


def _operation(action: str, summary: str, names: Iterable[str]) -> dict[str, Any]:
    return {
        "action": action,
        "summary": summary,
        "channel": {"$ref": f"#/channels/{_CHANNEL}"},
        "messages": [{"$ref": f"#/channels/{_CHANNEL}/messages/{name}"} for name in names],
    }


def _names(models: Iterable[type[BaseModel]]) -> list[str]:
    return [model.__name__ for model in models]


def _kind(model: type[BaseModel]) -> str:
    return str(model.model_json_schema()["properties"]["type"]["const"])
