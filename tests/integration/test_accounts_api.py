"""People over HTTP: what they are answered, tokens that lie, single sign-on with a real provider, and changes
that count in every process."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey

from voiceforge.api.app import create_app
from voiceforge.api.http.config import HttpConfig
from voiceforge.infra.credentials.password_hashes import PasswordHashes
from voiceforge.infra.db.database import Database
from voiceforge.main.authentication import build_authentication
from voiceforge.main.people import build_people, or_told
from voiceforge.main.settings import Settings
from voiceforge.main.settings_loading import load_settings
from voiceforge.services.access import OWNER, Role
from voiceforge.services.people import People
from voiceforge.testing.log_lines import log_lines
from voiceforge.testing.oidc_provider import CLIENT_ID, CLIENT_SECRET, FAULTS, oidc_provider
from voiceforge.testing.scripted_services import ScriptedTranscriptions, scripted_services

PASSWORD = "a rather long secret"
ANN = "ann@example.org"
CALLBACK = "http://test/v1/auth/oidc/callback"
Http = httpx.AsyncClient


class Process:
    """What one process of a server has."""

    def __init__(self, http: Http, people: People) -> None:
        self.http = http
        self.people = people

    async def add(self, email: str = ANN, role: Role = Role.OWNER) -> str:
        return (await self.people.members.add(OWNER, email, role, password=PASSWORD)).id

    async def log_in(self, email: str = ANN) -> dict[str, Any]:
        answer = await self.http.post("/v1/auth/login", json={"email": email, "password": PASSWORD})
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        told: dict[str, Any] = answer.json()
        return told

    async def bearer(self, email: str = ANN) -> dict[str, str]:
        return bearer((await self.log_in(email))["access_token"])

    async def me(self, headers: dict[str, str]) -> httpx.Response:
        return await self.http.get("/v1/me", headers=headers)


Start = Callable[..., Any]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest_asyncio.fixture
async def start(database_url: str, tmp_path: Path) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def one(**overrides: object) -> Process:
            given = {"data_dir": str(tmp_path), "auth.required": True, **overrides}
            settings: Settings = load_settings(environ={}, overrides=given)
            database = Database(database_url)
            stack.push_async_callback(database.close)
            people = build_people(settings, database, hashes=lambda: PasswordHashes(memory_kib=64))
            stack.push_async_callback(people.close)
            authentication = build_authentication(settings, database, people.tokens)
            stack.push_async_callback(authentication.close)
            services = scripted_services(ScriptedTranscriptions(), tmp_path, ready=False)
            stack.push_async_callback(asyncio.to_thread, services.engines.close, 1.0)
            app = create_app(
                replace(services, authentication=authentication, people=or_told(people)),
                HttpConfig(temp_dir=tmp_path, version="1.2.3"),
            )
            http = Http(transport=httpx.ASGITransport(app), base_url="http://test")
            return Process(await stack.enter_async_context(http), people)

        yield one


@pytest_asyncio.fixture
async def process(start: Start) -> Process:
    made: Process = await start()
    return made


async def test_from_an_invitation_to_the_end_of_a_session(process: Process) -> None:
    handed = await process.people.members.invite(OWNER, ANN, Role.ADMIN)
    joined = await process.http.post(
        "/v1/auth/register", json={"invitation": handed.token, "password": PASSWORD, "name": "Ann"}
    )
    assert (joined.status_code, joined.json()["email"], joined.json()["role"]) == (201, ANN, "admin")
    told = await process.log_in()
    assert (told["token_type"], told["expires_in"]) == ("Bearer", 900)
    me = (await process.me(bearer(told["access_token"]))).json()
    assert (me["user"]["name"], me["tenant"]["id"], me["role"]) == ("Ann", "default", "admin")
    assert "data:manage" not in me["scopes"]
    again = await process.http.post("/v1/auth/refresh", json={"refresh_token": told["refresh_token"]})
    assert again.status_code == 200
    out = await process.http.post("/v1/auth/logout", json={"refresh_token": again.json()["refresh_token"]})
    assert out.status_code == 204
    refused = await process.http.post("/v1/auth/refresh", json={"refresh_token": told["refresh_token"]})
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "revoked_credential")


async def test_registering_is_answered_the_same_for_every_address(start: Start) -> None:
    process: Process = await start(**{"auth.registration": "open"})
    await process.add()
    answers = [
        await process.http.post("/v1/auth/register", json={"email": email, "password": PASSWORD})
        for email in (ANN, "new@example.org")
    ]
    assert [(one.status_code, one.content) for one in answers] == [(202, b'{"status":"accepted"}')] * 2
    answers = [
        await process.http.post("/v1/auth/password/forgot", json={"email": email})
        for email in (ANN, "nobody@example.org")
    ]
    assert [(one.status_code, one.content) for one in answers] == [(202, b'{"status":"accepted"}')] * 2
    answers = [
        await process.http.post("/v1/auth/login", json={"email": email, "password": "another secret"})
        for email in (ANN, "new@example.org", "nobody@example.org", "no address")
    ]
    told = {(one.status_code, one.json()["error"]["code"], one.json()["error"]["message"]) for one in answers}
    assert len(told) == 1


async def test_halves_of_characters_are_refused_in_our_words(start: Start) -> None:
    """JSON can carry what UTF-8, and so hashes and databases, cannot."""
    process: Process = await start(**{"auth.registration": "open"})
    half = r'"\ud800aaaaaaaaaaaaaaa@x.example"'
    for path, body in (
        ("login", f'{{"email": {half}, "password": "{PASSWORD}"}}'),
        ("login", f'{{"email": "{ANN}", "password": {half}}}'),
        ("register", f'{{"email": {half}, "password": "{PASSWORD}"}}'),
        ("register", f'{{"email": "{ANN}", "password": {half}}}'),
        ("register", f'{{"email": "{ANN}", "password": "{PASSWORD}", "name": {half}}}'),
        ("password/forgot", f'{{"email": {half}}}'),
        ("verify", f'{{"token": {half}}}'),
        ("refresh", f'{{"refresh_token": {half}}}'),
    ):
        answer = await process.http.post(f"/v1/auth/{path}", content=body)
        assert answer.status_code == 422, (path, body)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("register", {"email": ANN}, "password"),
        ("register", {"password": PASSWORD}, "email"),
        ("register", {"invitation": "x", "email": ANN, "password": PASSWORD}, "email"),
        ("register", {"email": "ann", "password": PASSWORD}, "email"),
        ("register", {"email": ANN, "password": "short"}, "password"),
        ("register", {"email": ANN, "password": PASSWORD, "name": "a\x00b"}, "name"),
        ("register", {"email": ANN, "password": PASSWORD, "admin": True}, "admin"),
        ("login", {"email": ANN, "password": 12}, "password"),
        ("verify", {"token": "vft_x"}, "token"),
        ("password/reset", {"token": "vft_" + "x" * 43, "password": PASSWORD}, "token"),
        ("password/forgot", {"email": "@"}, "email"),
    ],
)
async def test_what_is_wrong_is_named(start: Start, path: str, body: dict[str, Any], field: str) -> None:
    process: Process = await start(**{"auth.registration": "open"})
    answer = await process.http.post(f"/v1/auth/{path}", json=body)
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, field)


async def test_guessing_is_told_when_to_come_back(process: Process) -> None:
    await process.add()
    guess = {"email": ANN, "password": "a guess of many"}
    for _ in range(10):
        assert (await process.http.post("/v1/auth/login", json=guess)).status_code == 401
    answer = await process.http.post("/v1/auth/login", json=guess)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited")
    assert 0 < int(answer.headers["retry-after"]) <= 300


async def test_people_are_listed_in_pages_and_changed(process: Process) -> None:
    await process.add()
    headers = await process.bearer()
    ids = [await process.add(f"p{n}@example.org", Role.MEMBER) for n in range(4)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await process.http.get("/v1/users", params=query, headers=headers)).json()
        seen += [one["id"] for one in page["data"]]
        cursor = page["next_cursor"]
    assert set(ids) < set(seen)
    assert len(seen) == 5
    path = f"/v1/users/{ids[0]}"
    changed = await process.http.patch(path, json={"role": "viewer", "disabled": True}, headers=headers)
    assert (changed.json()["role"], changed.json()["disabled"]) == ("viewer", True)
    assert (await process.http.get(path, headers=headers)).json() == changed.json()
    assert (await process.http.delete(path, headers=headers)).status_code == 204
    assert (await process.http.get(path, headers=headers)).status_code == 404
    handed = await process.http.post(f"/v1/users/{ids[1]}/password-reset", headers=headers)
    assert handed.status_code == 202
    assert handed.json()["token"].startswith("vft_")
    program = await process.http.post(
        "/v1/users", json={"email": "robot@example.org", "role": "service"}, headers=headers
    )
    assert program.status_code == 201
    asked = await process.http.post("/v1/users", json={"email": "bob@example.org"}, headers=headers)
    assert asked.status_code == 202
    (waiting,) = (await process.http.get("/v1/users/invitations", headers=headers)).json()["data"]
    assert (waiting["email"], waiting["role"]) == ("bob@example.org", "member")
    gone = await process.http.delete("/v1/users/invitations/bob@example.org", headers=headers)
    assert gone.status_code == 204


async def test_tenants_are_for_those_who_run_the_server(process: Process) -> None:
    await process.add()
    boss = await process.bearer()
    made = await process.http.post(
        "/v1/tenants", json={"name": "Acme", "tier": "pro", "owner_email": "bob@acme.example"}, headers=boss
    )
    assert made.status_code == 201
    invitation = made.json()["invitation"]["token"]
    joined = await process.http.post(
        "/v1/auth/register", json={"invitation": invitation, "password": PASSWORD}
    )
    assert joined.json()["role"] == "owner"
    bob = await process.bearer("bob@acme.example")
    assert (await process.me(bob)).json()["tenant"] == {
        "id": made.json()["id"],
        "name": "Acme",
        "tier": "pro",
    }
    refused = await process.http.get("/v1/tenants", headers=bob)
    assert (refused.status_code, refused.json()["error"]["choices"]) == (403, ["tenants:manage"])
    listed = (await process.http.get("/v1/tenants", headers=boss)).json()["data"]
    assert [one["name"] for one in listed] == ["Acme", "default"]
    path = f"/v1/tenants/{made.json()['id']}"
    off = await process.http.patch(path, json={"disabled": True}, headers=boss)
    assert off.json()["disabled"] is True
    await asyncio.sleep(0.85)
    assert (await process.me(bob)).json()["error"]["code"] == "revoked_credential"
    assert (
        await process.http.patch("/v1/tenants/default", json={"disabled": True}, headers=boss)
    ).status_code == 409


async def test_what_is_changed_in_one_process_counts_in_another_within_a_second(start: Start) -> None:
    here: Process = await start()
    there: Process = await start()
    await here.add("boss@example.org")
    boss, ann = await here.bearer("boss@example.org"), await here.add(role=Role.MEMBER)
    headers = await here.bearer()
    assert (await there.me(headers)).json()["role"] == "member"
    await here.http.patch(f"/v1/users/{ann}", json={"role": "viewer"}, headers=boss)
    await asyncio.sleep(0.95)
    assert (await there.me(headers)).json()["role"] == "viewer"
    await here.http.post("/v1/auth/logout/everywhere", headers=headers)
    await asyncio.sleep(0.95)
    assert (await there.me(headers)).json()["error"]["code"] == "revoked_credential"


class TestTokensThatLie:
    """401 with the class of the reason and one line in the log, whatever is done to a token."""

    @pytest_asyncio.fixture
    async def told(self, process: Process) -> dict[str, Any]:
        await process.add()
        token = (await process.log_in())["access_token"]
        header, content = (json.loads(_unpacked(part)) for part in token.split(".")[:2])
        return {"token": token, "header": header, "content": content}

    async def refused(self, process: Process, token: str, code: str) -> None:
        with log_lines() as lines:
            answer = await process.me(bearer(token))
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert len([one for one in lines if one["event"] == "refused"]) == 1
        assert not [one for one in lines if "exception" in one or token in str(one)]

    async def signed(
        self, process: Process, told: dict[str, Any], header: dict[str, Any], **claims: Any
    ) -> str:
        """By the server's own key: only what is said is wrong."""
        signer = await process.people.keys.signer()
        content = told["content"] | claims
        made: str = jwt.encode(
            told["header"] | header,
            {k: v for k, v in content.items() if v is not None},
            signer._key,
            algorithms=["ES256"],
        )
        return made

    @pytest.mark.parametrize(
        ("claims", "code"),
        [
            ({"exp": 1_000_000_000}, "expired_credential"),
            ({"nbf": 4_000_000_000}, "credential_not_yet_valid"),
            ({"iat": 4_000_000_000}, "credential_not_yet_valid"),
            ({"aud": "another"}, "wrong_audience"),
            ({"aud": None}, "malformed_credential"),
            ({"iss": "another"}, "malformed_credential"),
            ({"exp": None}, "malformed_credential"),
            ({"exp": "soon"}, "malformed_credential"),
            ({"sub": None}, "malformed_credential"),
            ({"sid": 7}, "malformed_credential"),
            ({"sub": "us_somebody_else"}, "revoked_credential"),
            ({"sid": "se_none"}, "revoked_credential"),
        ],
    )
    async def test_by_their_claims(
        self, process: Process, told: dict[str, Any], claims: dict[str, Any], code: str
    ) -> None:
        await self.refused(process, await self.signed(process, told, {}, **claims), code)

    @pytest.mark.parametrize(
        "header", [{"kid": "sk_" + "0" * 32}, {"kid": None}, {"typ": "JWT"}, {"crit": ["x"], "x": 1}]
    )
    async def test_by_their_headers(
        self, process: Process, told: dict[str, Any], header: dict[str, Any]
    ) -> None:
        changed = {k: v for k, v in (told["header"] | header).items() if v is not None}
        _, content, signature = told["token"].split(".")
        await self.refused(process, f"{_packed(changed)}.{content}.{signature}", "malformed_credential")

    async def test_by_having_no_signature(self, process: Process, told: dict[str, Any]) -> None:
        for algorithm in ("none", "None", "NONE"):
            header = told["header"] | {"alg": algorithm}
            for signature in ("", told["token"].split(".")[2]):
                token = f"{_packed(header)}.{_packed(told['content'])}.{signature}"
                await self.refused(process, token, "malformed_credential")

    async def test_by_taking_the_public_key_for_a_secret(
        self, process: Process, told: dict[str, Any]
    ) -> None:
        (public,) = (await process.http.get("/.well-known/jwks.json")).json()["keys"]
        for secret in (
            json.dumps(public).encode(),
            ECKey.import_key(public).as_pem(private=False),
            base64.urlsafe_b64decode(public["x"] + "=="),
        ):
            signed = f"{_packed(told['header'] | {'alg': 'HS256'})}.{_packed(told['content'])}"
            mac = hmac.digest(secret, signed.encode(), hashlib.sha256)
            token = f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"
            await self.refused(process, token, "malformed_credential")

    async def test_by_bringing_their_own_key(self, process: Process, told: dict[str, Any]) -> None:
        own = ECKey.generate_key("P-256")
        header = told["header"] | {"jwk": own.as_dict(private=False), "jku": "http://127.0.0.1:9/keys"}
        token = jwt.encode(header, told["content"], own, algorithms=["ES256"])
        await self.refused(process, token, "malformed_credential")
        secret = OctKey.generate_key(256)
        token = jwt.encode(told["header"] | {"alg": "HS256"}, told["content"], secret, algorithms=["HS256"])
        await self.refused(process, token, "malformed_credential")

    async def test_by_being_cut_or_mixed(self, process: Process, told: dict[str, Any]) -> None:
        header, content, signature = told["token"].split(".")
        for token in (
            f"{header}.{content}.",
            f"{header}..{signature}",
            f"{header}.{content}.{signature[:-4]}AAAA",
            f"{header}.{_packed(told['content'] | {'sub': 'us_x'})}.{signature}",
            f"{header}.{content}.{signature}" + "A" * 5000,
            "eyJ.eyJ.eyJ",
            "eyJh.e30.",
        ):
            await self.refused(process, token, "malformed_credential")


def _unpacked(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _packed(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


async def test_without_its_packages_accounts_say_what_to_install(tmp_path: Path) -> None:
    services = scripted_services(ScriptedTranscriptions(), tmp_path, ready=False)
    app = create_app(replace(services, people=or_told(None)), HttpConfig(temp_dir=tmp_path, version="1"))
    async with Http(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        for answer in (
            await http.get("/v1/me"),
            await http.get("/v1/users"),
            await http.get("/.well-known/jwks.json"),
            await http.get("/v1/auth/oidc/login"),
            await http.post("/v1/auth/login", json={"email": ANN, "password": PASSWORD}),
        ):
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (503, "dependency_missing")
            assert "pip install 'voiceforge[accounts]'" in error["message"]
    await asyncio.to_thread(services.engines.close, 1.0)


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with oidc_provider() as issuer:
        yield issuer


class TestSingleSignOn:
    @pytest_asyncio.fixture
    async def process(self, start: Start, issuer: str) -> Process:
        made: Process = await start(
            **{
                "oidc.issuer": issuer,
                "oidc.client_id": CLIENT_ID,
                "oidc.client_secret": CLIENT_SECRET,
                "oidc.redirect_url": CALLBACK,
                "oidc.role_claim": "groups",
                "oidc.roles": {"speech-admins": "admin", "guests": "viewer"},
            }
        )
        return made

    async def sent_back(self, process: Process, claims: dict[str, Any], fault: str = "") -> httpx.URL:
        """Where the browser goes after the provider, its cookie in its jar."""
        out = await process.http.get("/v1/auth/oidc/login")
        assert out.status_code == 302
        assert "httponly" in out.headers["set-cookie"].lower()
        async with Http(trust_env=False) as browser:
            form = {"claims": json.dumps(claims), "fault": fault}
            back = await browser.post(out.headers["location"], data=form)
        assert back.status_code == 302
        return httpx.URL(back.headers["location"])

    async def came(self, process: Process, fault: str = "", **claims: Any) -> httpx.Response:
        said = {"sub": "1234", "email": ANN, "email_verified": True} | claims
        return await process.http.get(await self.sent_back(process, said, fault))

    async def test_somebody_new_gets_an_account_and_is_known_again(self, process: Process) -> None:
        first = await self.came(process, name="Ann", groups=["x", "speech-admins"])
        assert first.status_code == 200
        me = (await process.me(bearer(first.json()["access_token"]))).json()
        assert (me["user"]["email"], me["user"]["name"], me["role"]) == (ANN, "Ann", "admin")
        # Another address and group: who they are is told by `sub`.
        again = await self.came(process, email="other@example.org", groups="guests")
        now = (await process.me(bearer(again.json()["access_token"]))).json()
        assert (now["user"]["id"], now["role"]) == (me["user"]["id"], "viewer")
        refreshed = await process.http.post(
            "/v1/auth/refresh", json={"refresh_token": again.json()["refresh_token"]}
        )
        assert refreshed.status_code == 200

    async def test_an_account_with_the_address_is_theirs_only_if_the_provider_vouches(
        self, process: Process
    ) -> None:
        user_id = await process.add()
        for claim in (False, None, "true", 1):
            assert (await self.came(process, email_verified=claim)).status_code == 403
        linked = await self.came(process)
        me = (await process.me(bearer(linked.json()["access_token"]))).json()
        assert (me["user"]["id"], me["role"]) == (user_id, "owner")

    async def test_who_is_disabled_does_not_come_in(self, process: Process) -> None:
        user_id = await process.add("someone@example.org", Role.MEMBER)
        assert (await self.came(process, email="someone@example.org")).status_code == 200
        await process.people.members.change(OWNER, user_id, disabled=True)
        refused = await self.came(process)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "revoked_credential")

    async def test_only_the_browser_that_left_comes_back(self, process: Process, start: Start) -> None:
        back = await self.sent_back(process, {"sub": "1", "email": ANN, "email_verified": True})
        process.http.cookies.clear()
        assert (await process.http.get(back)).json()["error"]["code"] == "malformed_credential"
        other = await self.sent_back(process, {"sub": "1", "email": ANN, "email_verified": True})
        mixed = other.copy_set_param("state", back.params["state"])
        assert (await process.http.get(mixed)).json()["error"]["code"] == "malformed_credential"
        assert (await process.http.get(other)).status_code == 200
        # Its cookie went with it, and the code is good once.
        assert (await process.http.get(other)).status_code == 401

    @pytest.mark.parametrize("fault", FAULTS)
    async def test_a_word_that_is_not_the_providers_is_not_believed(
        self, process: Process, fault: str
    ) -> None:
        answer = await self.came(process, fault)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "malformed_credential")

    async def test_a_code_of_somebody_else_is_worth_nothing(self, process: Process) -> None:
        """It was made for another verifier (PKCE)."""
        stolen = await self.sent_back(process, {"sub": "1", "email": ANN, "email_verified": True})
        own = await self.sent_back(process, {"sub": "2", "email": "eve@example.org", "email_verified": True})
        answer = await process.http.get(own.copy_set_param("code", stolen.params["code"]))
        assert answer.status_code == 401

    async def test_what_the_provider_refuses_and_what_lacks(self, process: Process) -> None:
        refused = await process.http.get("/v1/auth/oidc/callback?error=access_denied&state=x")
        assert refused.status_code == 401
        assert (await process.http.get("/v1/auth/oidc/callback?state=x")).status_code == 422

    async def test_a_provider_that_is_away_is_told(self, start: Start) -> None:
        process: Process = await start(
            **{
                "oidc.issuer": "http://127.0.0.1:9",
                "oidc.client_id": CLIENT_ID,
                "oidc.redirect_url": CALLBACK,
            }
        )
        answer = await process.http.get("/v1/auth/oidc/login")
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_failed")

    async def test_without_one_there_is_nothing(self, start: Start) -> None:
        assert (await (await start()).http.get("/v1/auth/oidc/login")).status_code == 404
