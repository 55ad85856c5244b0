"""Single sign-on: out to the provider, and back with its word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from voiceforge.api.native.account_schemas import TokensOut
from voiceforge.api.native.accounts import origin_of, tokens_reply, told
from voiceforge.errors import InvalidRequest, NotFound, Unauthenticated
from voiceforge.services.people import People
from voiceforge.services.single_sign_on import AWAY_S, SingleSignOn

LOGIN_PATH = "/v1/auth/oidc/login"
CALLBACK_PATH = "/v1/auth/oidc/callback"
OPEN_PATHS = frozenset({LOGIN_PATH, CALLBACK_PATH})
"""Whoever comes here is nobody yet."""
_COOKIE = "voiceforge_sso"
_COOKIE_PATH = "/v1/auth/oidc"
_LONGEST = 4096


def router(people: Callable[[], People]) -> APIRouter:
    """people: raises DependencyMissing where the packages for accounts are not installed."""
    routes = APIRouter(tags=["Accounts"])

    @routes.get(LOGIN_PATH, status_code=302, response_class=Response, **_told())
    async def leave(request: Request) -> Response:
        """To the provider. The browser keeps a cookie until it is back."""
        sso = _sso(people())
        departure = await sso.leave(origin_of(request))
        answer = Response(status_code=302, headers={"Location": departure.address, **_NOT_STORED})
        _set_cookie(answer, departure.cookie, int(AWAY_S), secure=sso.secure)
        return answer

    @routes.get(CALLBACK_PATH, response_model=TokensOut, **_told(_CALLBACK_QUERY))
    async def come_back(request: Request) -> Response:
        """What the provider sends the browser back to: tokens as after logging in."""
        sso = _sso(people())
        query = request.query_params
        if "error" in query:
            raise Unauthenticated("the provider did not let you in")
        state, code = query.get("state", ""), query.get("code", "")
        if not state or not code or len(state) > _LONGEST or len(code) > _LONGEST:
            raise InvalidRequest("the provider sends you here with a state and a code", field="code")
        tokens = await sso.come_back(request.cookies.get(_COOKIE), state, code, origin_of(request))
        answer = tokens_reply(tokens)
        _set_cookie(answer, "", 0, secure=sso.secure)
        return answer

    return routes


_NOT_STORED = {"Cache-Control": "no-store"}
_CALLBACK_QUERY = [
    {"name": name, "in": "query", "required": False, "schema": {"type": "string"}}
    for name in ("state", "code", "error")
]


def _sso(people: People) -> SingleSignOn:
    if people.single_sign_on is None:
        raise NotFound("there is no single sign-on here")
    return people.single_sign_on


def _set_cookie(answer: Response, value: str, max_age_s: int, *, secure: bool) -> None:
    answer.set_cookie(
        _COOKIE, value, max_age=max_age_s, path=_COOKIE_PATH, secure=secure, httponly=True, samesite="lax"
    )


def _told(parameters: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    from voiceforge.api.native import schemas

    upstream = {"model": schemas.ErrorOut, "description": "The provider does not answer as it should."}
    arguments = told(also={502: upstream})
    if parameters is not None:
        arguments["openapi_extra"] = {"parameters": parameters}
    return arguments
