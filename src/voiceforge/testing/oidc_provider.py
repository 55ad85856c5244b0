"""A provider of OpenID Connect in a process of its own, made with Authlib's own; it insists on PKCE.

Whoever is sent to it logs in by posting what it shall say of them, `claims`, to where they were sent, and may
ask for a `fault` in what it says.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from voiceforge.testing.ports import free_port

CLIENT_ID = "voiceforge"
CLIENT_SECRET = "a secret of the provider's"  # noqa: S105
FAULTS: Mapping[str, dict[str, Any]] = {
    "key": {},
    "nonce": {"nonce": "another"},
    "issuer": {"iss": "http://127.0.0.1:9"},
    "audience": {"aud": ["somebody-else"]},
    "expired": {"exp": 1_000_000_000},
}
_STARTS_S = 20.0


@contextlib.contextmanager
def oidc_provider() -> Iterator[str]:
    """Its issuer, while the block runs."""
    port = free_port()
    process = subprocess.Popen(  # noqa: S603  # a server of the test's
        [sys.executable, "-m", "voiceforge.testing.oidc_provider", str(port)],
        env={**os.environ, "AUTHLIB_INSECURE_TRANSPORT": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    issuer = f"http://127.0.0.1:{port}"
    try:
        _wait_for(issuer, process)
        yield issuer
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(issuer: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _STARTS_S
    while True:
        try:
            httpx.get(f"{issuer}/jwks", trust_env=False).raise_for_status()
        except httpx.HTTPError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


@dataclass
class _Code:
    """As Authlib wants them."""

    code: str
    redirect_uri: str
    scope: str
    nonce: str | None
    code_challenge: str | None
    code_challenge_method: str | None
    user: dict[str, Any]
    fault: str
    auth_time: int = field(default_factory=lambda: int(time.time()))

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str | None:
        return self.nonce

    def get_auth_time(self) -> int:
        return self.auth_time

    def get_acr(self) -> None:
        return None

    def get_amr(self) -> None:
        return None


class _Client:
    """The only one."""

    client_id = CLIENT_ID

    def get_client_id(self) -> str:
        return CLIENT_ID

    def get_default_redirect_uri(self) -> str | None:
        return None

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri.endswith("/v1/auth/oidc/callback")

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == CLIENT_SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "authorization_code"


def _serve(port: int) -> None:
    import flask
    from authlib.integrations.flask_oauth2 import AuthorizationServer
    from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
    from authlib.oauth2.rfc7636 import CodeChallenge
    from authlib.oidc.core import OpenIDCode, UserInfo
    from joserfc.jwk import RSAKey

    issuer = f"http://127.0.0.1:{port}"
    key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
    other = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
    codes: dict[str, _Code] = {}
    signs_wrongly = threading.Event()
    client = _Client()

    class Grant(AuthorizationCodeGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic"]  # noqa: RUF012

        def save_authorization_code(self, code: str, request: Any) -> None:
            asked = request.payload.data
            codes[code] = _Code(
                code,
                asked["redirect_uri"],
                asked["scope"],
                asked.get("nonce"),
                asked.get("code_challenge"),
                asked.get("code_challenge_method"),
                request.user,
                flask.request.form.get("fault", ""),
            )

        def query_authorization_code(self, code: str, client: _Client) -> _Code | None:
            return codes.get(code)

        def delete_authorization_code(self, authorization_code: _Code) -> None:
            del codes[authorization_code.code]

        def authenticate_user(self, authorization_code: _Code) -> dict[str, Any]:
            return authorization_code.user | {"_fault": authorization_code.fault}

    class Said(OpenIDCode):  # type: ignore[misc]
        def exists_nonce(self, nonce: str, request: Any) -> bool:
            return any(one.nonce == nonce for one in codes.values())

        def get_jwt_config(self, grant: Any, client: Any = None) -> dict[str, Any]:
            signer = other if signs_wrongly.is_set() else key
            return {"key": signer.as_dict(private=True), "alg": "RS256", "iss": issuer, "exp": 3600}

        def generate_user_info(self, user: dict[str, Any], scope: str) -> UserInfo:
            """What is said here goes over what Authlib says."""
            fault = user["_fault"]
            signs_wrongly.set() if fault == "key" else signs_wrongly.clear()
            said = {name: value for name, value in user.items() if name != "_fault"}
            return UserInfo(said | FAULTS.get(fault, {}))

    app = flask.Flask(__name__)
    server = AuthorizationServer(
        app, query_client=lambda wanted: client if wanted == CLIENT_ID else None, save_token=lambda *_: None
    )
    server.register_grant(Grant, [Said(require_nonce=True), CodeChallenge(required=True)])

    @app.get("/.well-known/openid-configuration")
    def discovery() -> dict[str, Any]:
        return {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
            "jwks_uri": f"{issuer}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }

    @app.get("/jwks")
    def jwks() -> dict[str, Any]:
        return {"keys": [key.as_dict(private=False)]}

    @app.post("/authorize")
    def authorize() -> Any:
        user = json.loads(flask.request.form["claims"])
        return server.create_authorization_response(grant_user=user)

    @app.post("/token")
    def token() -> Any:
        return server.create_token_response()

    app.run("127.0.0.1", port, threaded=True)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
