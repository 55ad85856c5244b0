"""Coming in and going out: registering, logging in, passwords; and the keys our tokens are checked with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from voiceforge.api.http.auth import caller_of
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.http.forms import M, body_schema, parse
from voiceforge.api.http.request_id import request_id_of
from voiceforge.api.http.uploads import Uploads
from voiceforge.api.native import schemas
from voiceforge.api.native.account_schemas import (
    AcceptedOut,
    ChangePasswordIn,
    EndedOut,
    ForgotIn,
    KeySetOut,
    LoginIn,
    MeOut,
    RefreshIn,
    RegisterIn,
    ResetIn,
    TokenIn,
    TokensOut,
    UserOut,
)
from voiceforge.api.native.job_convert import iso_time
from voiceforge.api.native.jobs import json_reply
from voiceforge.errors import InvalidRequest
from voiceforge.services.accounts import Registrant, User
from voiceforge.services.people import People
from voiceforge.services.sign_ins import Origin, Tokens

_ERROR = {"model": schemas.ErrorOut}
_NOT_STORED = {"Cache-Control": "no-store", "Pragma": "no-cache"}
JWKS_PATH = "/.well-known/jwks.json"
OPEN_PATHS = frozenset(
    {
        JWKS_PATH,
        "/v1/auth/register",
        "/v1/auth/verify",
        "/v1/auth/login",
        "/v1/auth/refresh",
        "/v1/auth/logout",
        "/v1/auth/password/forgot",
        "/v1/auth/password/reset",
    }
)
"""Whoever comes here is nobody yet."""


def router(people: Callable[[], People], config: HttpConfig) -> APIRouter:
    """people: raises DependencyMissing where the packages for accounts are not installed."""
    routes = APIRouter()
    uploads = Uploads(config.max_upload_bytes, config.upload_idle_s)

    async def body(request: Request, model: type[M]) -> M:
        return parse(model, await uploads.json_object(request))

    @routes.post(
        "/v1/auth/register",
        status_code=202,
        response_model=AcceptedOut,
        tags=["Accounts"],
        **told(
            RegisterIn,
            conflict="The address that was invited got an account meanwhile.",
            also={201: {"model": UserOut, "description": "You have taken up an invitation."}},
        ),
    )
    async def register(request: Request) -> Response:
        """Get an account. The answer is the same where the address has one."""
        here = people()
        asked = await body(request, RegisterIn)
        if asked.invitation is not None:
            if asked.email is not None or asked.organisation is not None:
                field = "email" if asked.email is not None else "organisation"
                raise InvalidRequest("the invitation says that", field=field)
            user = await here.accounts.join(asked.invitation, asked.password, asked.name, origin_of(request))
            return json_reply(user_document(user), 201)
        if asked.email is None:
            raise InvalidRequest("email: Field required", field="email")
        who = Registrant(asked.email, asked.password, asked.name, asked.organisation)
        await here.accounts.register(who, origin_of(request))
        return _accepted()

    @routes.post(
        "/v1/auth/verify",
        status_code=201,
        response_model=UserOut,
        tags=["Accounts"],
        **told(TokenIn, conflict="The address got an account meanwhile."),
    )
    async def verify(request: Request) -> Response:
        """Confirm a registration: from now on you can log in."""
        here = people()
        asked = await body(request, TokenIn)
        return json_reply(user_document(await here.accounts.verify(asked.token, origin_of(request))), 201)

    @routes.post("/v1/auth/login", response_model=TokensOut, tags=["Accounts"], **told(LoginIn))
    async def login(request: Request) -> Response:
        """An access token and a refresh token, for an address and its password."""
        here = people()
        asked = await body(request, LoginIn)
        return tokens_reply(await here.accounts.log_in(asked.email, asked.password, origin_of(request)))

    @routes.post("/v1/auth/refresh", response_model=TokensOut, tags=["Accounts"], **told(RefreshIn))
    async def refresh(request: Request) -> Response:
        """The next two tokens. A refresh token that was used before ends its session."""
        here = people()
        asked = await body(request, RefreshIn)
        return tokens_reply(await here.sign_ins.refresh(asked.refresh_token, origin_of(request)))

    @routes.post(
        "/v1/auth/logout", status_code=204, response_class=Response, tags=["Accounts"], **told(RefreshIn)
    )
    async def logout(request: Request) -> Response:
        """End the session of a refresh token, and with it its access tokens."""
        here = people()
        asked = await body(request, RefreshIn)
        await here.sign_ins.end(asked.refresh_token)
        return Response(status_code=204)

    @routes.post("/v1/auth/logout/everywhere", response_model=EndedOut, tags=["Accounts"], **told())
    async def logout_everywhere(request: Request) -> Response:
        """End every session of yours, this one too."""
        return json_reply({"sessions_ended": await people().accounts.log_out_everywhere(caller_of(request))})

    @routes.post(
        "/v1/auth/password",
        response_model=TokensOut,
        tags=["Accounts"],
        **told(ChangePasswordIn, conflict="It was changed at the same time."),
    )
    async def change_password(request: Request) -> Response:
        """Another password. Every session ends; the answer is a new one."""
        here = people()
        asked = await body(request, ChangePasswordIn)
        tokens = await here.accounts.change_password(
            caller_of(request), asked.current_password, asked.new_password, origin_of(request)
        )
        return tokens_reply(tokens)

    @routes.post(
        "/v1/auth/password/forgot",
        status_code=202,
        response_model=AcceptedOut,
        tags=["Accounts"],
        **told(ForgotIn),
    )
    async def forgot(request: Request) -> Response:
        """Have a letter sent that lets you set another. The answer is the same for every address."""
        here = people()
        asked = await body(request, ForgotIn)
        await here.accounts.forgot_password(asked.email, origin_of(request))
        return _accepted()

    @routes.post(
        "/v1/auth/password/reset",
        status_code=204,
        response_class=Response,
        tags=["Accounts"],
        **told(ResetIn),
    )
    async def reset(request: Request) -> Response:
        """Set another password with the token of a letter. Every session ends."""
        here = people()
        asked = await body(request, ResetIn)
        await here.accounts.reset_password(asked.token, asked.password, origin_of(request))
        return Response(status_code=204)

    @routes.get("/v1/me", response_model=MeOut, tags=["Accounts"], **told())
    async def me(request: Request) -> Response:
        """Who you are to this server, and what you may do."""
        caller = caller_of(request)
        user, tenant = await people().accounts.me(caller)
        document = {
            "user": None if user is None else user_document(user),
            "tenant": {"id": tenant.id, "name": tenant.name, "tier": tenant.tier},
            "role": caller.role.value,
            "scopes": sorted(caller.scopes),
            "key_id": caller.key_id,
        }
        return json_reply(document)

    @routes.get(JWKS_PATH, response_model=KeySetOut, tags=["Accounts"], **told())
    async def jwks() -> Response:
        """The keys that our access tokens can be checked with."""
        found = await people().keys.jwks()
        return json_reply(found, headers={"Cache-Control": "public, max-age=60"})

    return routes


def origin_of(request: Request) -> Origin:
    client = request.client
    return Origin(
        None if client is None else client.host,
        request.headers.get("user-agent"),
        request_id_of(request.scope) or None,
    )


def tokens_reply(tokens: Tokens) -> Response:
    document = {
        "access_token": tokens.access,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in_s,
        "refresh_token": tokens.refresh,
    }
    return json_reply(document, headers=_NOT_STORED)


def user_document(user: User) -> dict[str, Any]:
    """A `UserOut`."""
    return {
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "role": user.role,
        "disabled": user.disabled_at is not None,
        "created_at": iso_time(user.created_at),
        "last_login_at": iso_time(user.last_login_at),
    }


def _accepted() -> Response:
    return json_reply({"status": "accepted"}, 202)


def told(
    body: type[BaseModel] | None = None,
    *,
    conflict: str | None = None,
    also: dict[int, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The arguments that tell OpenAPI what FastAPI cannot see."""
    responses: dict[int, dict[str, Any]] = {
        401: {**_ERROR, "description": "You are not known, or not any more; `code` tells why."},
        403: {**_ERROR, "description": "You may not do that; the message names the scope that lacks."},
        404: {**_ERROR, "description": "There is nothing of that id."},
        413: {**_ERROR, "description": "The body is too large."},
        422: {**_ERROR, "description": "Something is wrong with what was sent; `field` tells where."},
        429: {**_ERROR, "description": "Too many attempts; see `Retry-After`."},
        503: {**_ERROR, "description": "The database does not answer, or packages lack; see the message."},
        **(also or {}),
    }
    if conflict is not None:
        responses[409] = {**_ERROR, "description": conflict}
    arguments: dict[str, Any] = {"responses": responses}
    if body is not None:
        content = {"application/json": {"schema": body_schema(body)}}
        arguments["openapi_extra"] = {"requestBody": {"required": True, "content": content}}
    return arguments
