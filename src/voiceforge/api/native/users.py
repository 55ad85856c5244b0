"""The people of a tenant: listed, invited, changed, removed."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request
from fastapi.responses import Response

from voiceforge.api.http.auth import caller_of
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.http.forms import M, parse, query_parameters
from voiceforge.api.http.uploads import Uploads
from voiceforge.api.native.account_schemas import UserOut
from voiceforge.api.native.accounts import told, user_document
from voiceforge.api.native.job_convert import id_before, iso_time, known_id
from voiceforge.api.native.jobs import json_reply, page, read_query
from voiceforge.api.native.user_schemas import (
    HandedOutOut,
    InvitationsOut,
    NewUserIn,
    UserChangeIn,
    UserPageOut,
)
from voiceforge.api.native.webhook_schemas import PageQuery
from voiceforge.errors import InvalidRequest
from voiceforge.services.access import Role
from voiceforge.services.members import HandedOut
from voiceforge.services.people import People

_LAST = "No owner would be left, or the account is of another kind."


def router(people: Callable[[], People], config: HttpConfig) -> APIRouter:
    """people: raises DependencyMissing where the packages for accounts are not installed."""
    routes = APIRouter(prefix="/v1/users", tags=["Users"])
    uploads = Uploads(config.max_upload_bytes, config.upload_idle_s)

    async def body(request: Request, model: type[M]) -> M:
        return parse(model, await uploads.json_object(request))

    listing = told()
    listing["openapi_extra"] = {"parameters": query_parameters(PageQuery)}

    @routes.get("", response_model=UserPageOut, **listing)
    async def list_users(request: Request) -> Response:
        """The people and programs of your tenant."""
        members, query = people().members, read_query(request, PageQuery)
        found = await members.list(caller_of(request), before=id_before(query.cursor), limit=query.limit + 1)
        return json_reply(page([user_document(one) for one in found], query.limit))

    @routes.post(
        "",
        status_code=202,
        response_model=HandedOutOut,
        **told(
            NewUserIn,
            conflict="The address has an account, or too many are invited.",
            also={201: {"model": UserOut, "description": "A program: it is there."}},
        ),
    )
    async def invite(request: Request) -> Response:
        """Ask somebody to join. They say yes with the token, at `/v1/auth/register`."""
        members = people().members
        asked = await body(request, NewUserIn)
        role = Role(asked.role)
        if role is Role.SERVICE:
            made = await members.add(caller_of(request), asked.email, role, name=asked.name)
            return json_reply(user_document(made), 201, {"Location": f"/v1/users/{made.id}"})
        if asked.name is not None:
            raise InvalidRequest("people say their names themselves", field="name")
        return json_reply(
            handed_out_document(await members.invite(caller_of(request), asked.email, role)), 202
        )

    @routes.get("/invitations", response_model=InvitationsOut, **told())
    async def invitations(request: Request) -> Response:
        """Who was asked to join and has not answered."""
        found = await people().members.invitations(caller_of(request))
        documents = [
            {
                "email": one.email,
                "role": one.role.value,
                "created_at": iso_time(one.created_at),
                "expires_at": iso_time(one.expires_at),
            }
            for one in found
        ]
        return json_reply({"data": documents})

    @routes.delete("/invitations/{email}", status_code=204, response_class=Response, **told())
    async def withdraw(email: str, request: Request) -> Response:
        """Nobody can say yes to it any more."""
        await people().members.withdraw(caller_of(request), email)
        return Response(status_code=204)

    @routes.get("/{user_id}", response_model=UserOut, **told())
    async def show(user_id: str, request: Request) -> Response:
        members = people().members
        return json_reply(user_document(await members.show(caller_of(request), known_id(user_id, "user"))))

    @routes.patch("/{user_id}", response_model=UserOut, **told(UserChangeIn, conflict=_LAST))
    async def change(user_id: str, request: Request) -> Response:
        """Another role, or nobody who may come in; in every process within a second."""
        members, wanted = people().members, known_id(user_id, "user")
        asked, caller = await body(request, UserChangeIn), caller_of(request)
        user = await members.change(
            caller,
            wanted,
            role=None if asked.role is None else Role(asked.role),
            disabled=asked.disabled,
        )
        return json_reply(user_document(user))

    @routes.delete("/{user_id}", status_code=204, response_class=Response, **told(conflict=_LAST))
    async def remove(user_id: str, request: Request) -> Response:
        """With their sessions and keys; what they had transcribed is the tenant's, and stays."""
        await people().members.remove(caller_of(request), known_id(user_id, "user"))
        return Response(status_code=204)

    @routes.post(
        "/{user_id}/password-reset",
        status_code=202,
        response_model=HandedOutOut,
        **told(conflict="This account has no password."),
    )
    async def hand_out_reset(user_id: str, request: Request) -> Response:
        """What lets them set another password, at `/v1/auth/password/reset`."""
        members = people().members
        handed = await members.hand_out_reset(caller_of(request), known_id(user_id, "user"))
        return json_reply(handed_out_document(handed), 202)

    return routes


def handed_out_document(handed: HandedOut) -> dict[str, str | None]:
    """A `HandedOutOut`."""
    return {"email": handed.email, "token": handed.token, "expires_at": iso_time(handed.expires_at)}
