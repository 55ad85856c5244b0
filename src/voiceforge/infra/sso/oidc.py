"""A provider of OpenID Connect: the authorization code flow with PKCE (RFC 7636), state and nonce.

What the provider can do is read from its discovery document, its keys from where that says; both are kept a
while. Whoever configured it trusts it: what it says of people is believed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from authlib.oidc.discovery import OpenIDProviderMetadata, get_well_known_url
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from voiceforge.errors import MalformedCredential, Unauthenticated, UpstreamFailed

_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a key that only the provider has."""
_LEEWAY_S = 60
_KEPT_S = 3600.0
_KEYS_AGAIN_S = 10.0
_MOST_BYTES = 1024 * 1024
_NEEDED = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")


@dataclass(frozen=True, slots=True)
class OidcClient:
    """Who we are to the provider. client_secret: None: a public client."""

    issuer: str
    client_id: str
    client_secret: str | None
    redirect_url: str
    scopes: Sequence[str]


class OidcProvider:
    """Args:
    clock: Unix seconds.
    """

    def __init__(
        self,
        client: OidcClient,
        *,
        timeout_s: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.client = client
        self._timeout_s = timeout_s
        self._clock = clock
        self._metadata: tuple[float, OpenIDProviderMetadata] | None = None
        self._keys: tuple[float, KeySet] | None = None

    async def address(self, state: str, nonce: str, verifier: str) -> str:
        """Where somebody who wants to log in is sent.

        Raises:
            UpstreamFailed: the provider does not say.
        """
        metadata = await self._discovered()
        asked = {
            "response_type": "code",
            "client_id": self.client.client_id,
            "redirect_uri": self.client.redirect_url,
            "scope": " ".join(self.client.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": create_s256_code_challenge(verifier),
            "code_challenge_method": "S256",
        }
        return str(add_params_to_uri(metadata["authorization_endpoint"], list(asked.items())))

    async def claims(self, code: str, nonce: str, verifier: str) -> Mapping[str, Any]:
        """What the provider says of who came back with this code.

        Raises:
            Unauthenticated: it does not take the code.
            MalformedCredential: what it gave for it is not what it has to be.
            UpstreamFailed
        """
        metadata = await self._discovered()
        async with self._http() as http:
            given = await self._exchanged(http, metadata, code, verifier)
            token, access_token = given.get("id_token"), given.get("access_token")
            if not isinstance(token, str):
                raise MalformedCredential("the provider gave no ID token")
            claims = await self._checked(token, access_token, nonce, metadata["issuer"])
            endpoint = metadata.get("userinfo_endpoint")
            if "email" not in claims and isinstance(endpoint, str) and isinstance(access_token, str):
                headers = {"Authorization": f"Bearer {access_token}"}
                more = await self._json(await _sent(http, "GET", endpoint, headers=headers))
                if more.get("sub") == claims["sub"]:  # OpenID Connect Core, 5.3.2
                    return {**more, **claims}
        return claims

    async def _exchanged(
        self, http: httpx.AsyncClient, metadata: Mapping[str, Any], code: str, verifier: str
    ) -> Mapping[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.client.redirect_url,
            "client_id": self.client.client_id,
            "code_verifier": verifier,
        }
        secret, auth = self.client.client_secret, None
        ways = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        if secret is not None and "client_secret_basic" in ways:
            auth = httpx.BasicAuth(self.client.client_id, secret)
        elif secret is not None:
            form["client_secret"] = secret
        answer = await _sent(http, "POST", metadata["token_endpoint"], data=form, auth=auth)
        if 400 <= answer.status_code < 500:
            raise Unauthenticated("the provider does not take that code")
        return await self._json(answer)

    async def _checked(self, token: str, access_token: object, nonce: str, issuer: str) -> dict[str, Any]:
        keys = await self._believed()
        try:
            try:
                read = jwt.decode(token, keys, algorithms=list(_ALGORITHMS))
            except (JoseError, ValueError):
                keys = await self._believed(again=True)  # it may sign with a new one
                read = jwt.decode(token, keys, algorithms=list(_ALGORITHMS))
            claims = CodeIDToken(
                read.claims,
                read.header,
                options={
                    "iss": {"essential": True, "value": issuer},
                    "aud": {"essential": True, "value": self.client.client_id},
                },
                params={"nonce": nonce, "client_id": self.client.client_id, "access_token": access_token},
            )
            claims.validate(int(self._clock()), _LEEWAY_S)
        # Authlib has errors of its own for claims, besides those of joserfc.
        except Exception as error:
            raise MalformedCredential("the provider's ID token is not what it has to be") from error
        if not isinstance(claims["sub"], str) or not claims["sub"] or not claims["sub"].isprintable():
            raise MalformedCredential("the provider's ID token does not say whose it is")
        return dict(claims)

    async def _discovered(self) -> OpenIDProviderMetadata:
        """
        Raises:
            UpstreamFailed
        """
        now = time.monotonic()
        if self._metadata is None or now - self._metadata[0] > _KEPT_S:
            url = get_well_known_url(self.client.issuer, external=True)
            async with self._http() as http:
                found = OpenIDProviderMetadata(await self._json(await _sent(http, "GET", url)))
            if not all(isinstance(found.get(name), str) for name in _NEEDED):
                raise UpstreamFailed("the provider of single sign-on does not say where its doors are")
            if found["issuer"].rstrip("/") != self.client.issuer.rstrip("/"):
                raise UpstreamFailed("the provider of single sign-on says that it is another")
            self._metadata = (now, found)
        return self._metadata[1]

    async def _believed(self, *, again: bool = False) -> KeySet:
        now = time.monotonic()
        kept_s = _KEYS_AGAIN_S if again else _KEPT_S
        if self._keys is None or now - self._keys[0] > kept_s:
            metadata = await self._discovered()
            async with self._http() as http:
                found = await self._json(await _sent(http, "GET", metadata["jwks_uri"]))
            try:
                keys = KeySet.import_key_set(found)  # type: ignore[arg-type]
            except (JoseError, ValueError, KeyError, TypeError) as error:
                raise UpstreamFailed("the keys of the provider of single sign-on are broken") from error
            self._keys = (now, keys)
        return self._keys[1]

    async def _json(self, answer: httpx.Response) -> dict[str, Any]:
        if not answer.is_success:
            raise UpstreamFailed(f"the provider of single sign-on answered {answer.status_code}")
        try:
            document = json.loads(answer.content)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise UpstreamFailed("the provider of single sign-on answered with something that is not JSON")
        return document

    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=self._timeout_s, follow_redirects=False, trust_env=False)


async def _sent(http: httpx.AsyncClient, method: str, url: str, **more: Any) -> httpx.Response:
    """
    Raises:
        UpstreamFailed: there is no answer, or one without end.
    """
    try:
        async with http.stream(method, url, **more) as answer:
            body = bytearray()
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > _MOST_BYTES:
                    raise UpstreamFailed("the answer of the provider of single sign-on has no end")
            return httpx.Response(answer.status_code, content=bytes(body))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UpstreamFailed("the provider of single sign-on does not answer") from error
