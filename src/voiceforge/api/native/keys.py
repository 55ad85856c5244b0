"""API keys: made, shown, replaced, taken back; and short-lived tokens, for those that shall hold none."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from voiceforge.api.http.auth import caller_of
from voiceforge.api.http.config import HttpConfig
from voiceforge.api.http.forms import M, parse
from voiceforge.api.http.uploads import Uploads
from voiceforge.api.native.job_convert import id_before, iso_time, known_id, unix_time
from voiceforge.api.native.jobs import documented, json_reply, page, read_query
from voiceforge.api.native.key_schemas import (
    KeyOut,
    KeyPageOut,
    NewKeyIn,
    NewKeyOut,
    NewTokenIn,
    NewTokenOut,
    RotateKeyIn,
)
from voiceforge.api.native.webhook_schemas import PageQuery
from voiceforge.api.native.webhooks import taking
from voiceforge.services.access import Scope
from voiceforge.services.key_documents import key_document, new_key_document
from voiceforge.services.keys import Keys, KeyWish
from voiceforge.services.short_tokens import ShortTokens


def keys_router(keys: Keys, config: HttpConfig) -> APIRouter:
    routes = APIRouter(prefix="/v1/keys", tags=["Keys"])
    read = _BodyReader(config)

    @routes.post("", status_code=201, response_model=NewKeyOut, **taking(NewKeyIn, conflict=True))
    async def create(request: Request) -> Response:
        """A new key. The answer is the only one that tells it."""
        asked = await read(request, NewKeyIn)
        made = await keys.create(
            caller_of(request),
            KeyWish(
                name=asked.name,
                role=asked.role,
                scopes=None if asked.scopes is None else frozenset(asked.scopes),
                models=None if asked.models is None else tuple(asked.models),
                addresses=None if asked.addresses is None else tuple(asked.addresses),
                tier=asked.tier,
                expires_at=unix_time(asked.expires_at),
            ),
        )
        return json_reply(new_key_document(made), 201, {"Location": f"/v1/keys/{made.key.id}"})

    @routes.get("", response_model=KeyPageOut, **documented(PageQuery))
    async def list_keys(request: Request) -> Response:
        """The newest first, also those that are over."""
        query = read_query(request, PageQuery)
        found = await keys.list(caller_of(request), before=id_before(query.cursor), limit=query.limit + 1)
        return json_reply(page([key_document(one) for one in found], query.limit))

    @routes.get("/{key_id}", response_model=KeyOut, **documented())
    async def show(key_id: str, request: Request) -> Response:
        """What is known of a key, without the key itself."""
        return json_reply(key_document(await keys.show(caller_of(request), known_id(key_id, "key"))))

    @routes.post(
        "/{key_id}/rotate",
        status_code=201,
        response_model=NewKeyOut,
        **taking(RotateKeyIn, required=False, conflict=True),
    )
    async def rotate(key_id: str, request: Request) -> Response:
        """Another key that can do the same, told this once; the old one is good for `overlap_s` more."""
        headers = request.headers
        empty = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        asked = RotateKeyIn() if empty else await read(request, RotateKeyIn)
        made = await keys.rotate(caller_of(request), known_id(key_id, "key"), asked.overlap_s)
        return json_reply(new_key_document(made), 201, {"Location": f"/v1/keys/{made.key.id}"})

    @routes.delete("/{key_id}", status_code=204, response_class=Response, **documented())
    async def revoke(key_id: str, request: Request) -> Response:
        """Within a second it lets nobody in any more, nor do the tokens that were made with it. The key stays
        in the list."""
        await keys.revoke(caller_of(request), known_id(key_id, "key"))
        return Response(status_code=204)

    return routes


def tokens_router(tokens: ShortTokens, config: HttpConfig) -> APIRouter:
    routes = APIRouter(prefix="/v1/auth", tags=["Keys"])
    read = _BodyReader(config)

    @routes.post("/tokens", status_code=201, response_model=NewTokenOut, **taking(NewTokenIn, required=False))
    async def make_token(request: Request) -> Response:
        """A token for a browser: it ends soon, and with the key that it was made with."""
        headers = request.headers
        empty = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        asked = NewTokenIn() if empty else await read(request, NewTokenIn)
        scopes = frozenset(map(Scope, asked.scopes))
        made = tokens.make(caller_of(request), asked.expires_in_s, scopes=scopes)
        told = {
            "token": made.value,
            "expires_at": iso_time(float(made.expires_at)),
            "scopes": sorted(scopes),
        }
        return json_reply(told, 201, {"Cache-Control": "no-store"})

    return routes


class _BodyReader:
    def __init__(self, config: HttpConfig) -> None:
        self._uploads = Uploads(config.max_upload_bytes, config.upload_idle_s)

    async def __call__(self, request: Request, model: type[M]) -> M:
        return parse(model, await self._uploads.json_object(request))
