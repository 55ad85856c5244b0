"""`POST /v1/realtime/client_secrets`, and `…/transcription_sessions` of the beta: keys for browsers."""

from __future__ import annotations

import json
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from voiceforge.api.http.auth import caller_of
from voiceforge.api.http.forms import body_schema, parse
from voiceforge.api.http.uploads import Uploads
from voiceforge.api.openai_compat import schemas
from voiceforge.api.openai_compat.realtime_door import new_id, stream_request
from voiceforge.api.openai_compat.realtime_session import Dialect, Session
from voiceforge.errors import Unavailable
from voiceforge.services.access import Caller
from voiceforge.services.short_tokens import REALTIME, ShortTokens
from voiceforge.services.streams import Streams

_DEFAULT_S = 600


class ExpiresAfter(BaseModel):
    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(default=_DEFAULT_S, ge=10, le=7200, description="How long the secret can be used.")


class ClientSecretFields(BaseModel):
    """What a secret is good for."""

    expires_after: ExpiresAfter | None = None
    session: dict[str, Any] | None = Field(
        default=None, description="The session it opens, as in `session.update`."
    )


class BetaSecret(BaseModel):
    expires_at: ExpiresAfter | None = None


class BetaSessionFields(BaseModel):
    """The session, as in `transcription_session.update`; only what is not part of it is named here."""

    client_secret: BetaSecret | None = None


class ClientSecretOut(BaseModel):
    value: str = Field(description="`ek_…`, to be sent as an API key to `/v1/realtime`, and nowhere else.")
    expires_at: int = Field(description="Unix seconds.")
    session: dict[str, Any]


def router(streams: Streams | None, tokens: ShortTokens, uploads: Uploads) -> APIRouter:
    routes = APIRouter(prefix="/v1/realtime", tags=["OpenAI"])

    def make(
        caller: Caller, fields: dict[str, Any], dialect: Dialect, expiry: ExpiresAfter | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The session as the client reads it, and its secret."""
        if streams is None:
            raise Unavailable("this process takes no live streams")
        session = Session().changed(fields, dialect)
        model = streams.check(stream_request(session, caller))
        secret = tokens.make(
            caller,
            (expiry or ExpiresAfter()).seconds,
            prefix=REALTIME,
            data=session.model_dump(mode="json", exclude_defaults=True),
        )
        told = session.document(dialect, session_id=new_id("sess"), model=model)
        return told | {"expires_at": secret.expires_at}, {
            "value": secret.value,
            "expires_at": secret.expires_at,
        }

    @routes.post("/client_secrets", response_model=ClientSecretOut, **_documented(ClientSecretFields))
    async def create_client_secret(request: Request) -> Response:
        """Make a key that a browser may hold: short-lived, and good for realtime sessions only."""
        asked = parse(ClientSecretFields, await uploads.json_object(request))
        session, secret = make(caller_of(request), asked.session or {}, "ga", asked.expires_after)
        return _json({**secret, "session": session})

    @routes.post("/transcription_sessions", **_documented(BetaSessionFields))
    async def create_transcription_session(request: Request) -> Response:
        """The same, in the shape of OpenAI's beta."""
        fields = await uploads.json_object(request)
        asked = parse(BetaSessionFields, fields)
        expiry = asked.client_secret.expires_at if asked.client_secret else None
        session, secret = make(caller_of(request), dict(fields), "beta", expiry)
        return _json({**session, "client_secret": secret})

    return routes


def _json(document: dict[str, Any]) -> Response:
    return Response(json.dumps(document), media_type="application/json")


def _documented(fields: type[BaseModel]) -> dict[str, Any]:
    failure = {"model": schemas.ErrorOut}
    return {
        "response_class": Response,
        "responses": {
            400: {**failure, "description": "The request is malformed, or its session is."},
            401: {**failure, "description": "The API key is missing or wrong."},
            404: {**failure, "description": "No such model, or it is not installed."},
        },
        "openapi_extra": {"requestBody": {"content": {"application/json": {"schema": body_schema(fields)}}}},
    }
