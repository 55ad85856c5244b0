"""API keys and short-lived tokens over HTTP, from a server that wants everybody known, on both databases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import deepgram
import httpx
import openai
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from voiceforge.api.native.key_schemas import KeyOut, KeyPageOut, NewKeyOut, NewTokenOut
from voiceforge.infra.db.database import Database
from voiceforge.services.access import DEFAULT_TENANT, Role, Scope, trusted
from voiceforge.services.authentication import Authentication
from voiceforge.services.container import Services
from voiceforge.services.key_holders import KeyHolders
from voiceforge.services.key_text import is_whole
from voiceforge.services.keys import Keys, KeyWish
from voiceforge.services.models import Models
from voiceforge.services.samples import sample_recordings
from voiceforge.services.short_tokens import ShortTokens
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.fake_engine import says_by_length
from voiceforge.testing.job_house import MODEL, JobHouse
from voiceforge.testing.job_server import JobServer, job_server
from voiceforge.testing.postgres_server import PostgresServer
from voiceforge.testing.scripted_services import ScriptedModels

CLIP = sample_recordings()[0]
WAIT_S = 30
SECRET = b"k" * 32
NewKeyText = Callable[..., str]


def _keys(database: Database) -> Keys:
    return Keys(database, SECRET)


def _furnish(services: Services, house: JobHouse) -> Services:
    authentication = Authentication(
        required=True,
        holders=KeyHolders(house.database, SECRET),
        short_tokens=ShortTokens(b"t" * 32),
        failures_per_minute=0,
    )
    # What the scripted engine calls itself is known, too: Deepgram's answers tell the family of the model.
    models = cast(Models, ScriptedModels())
    return replace(services, authentication=authentication, keys=_keys(house.database), models=models)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobServer]:
    folder = tmp_path_factory.mktemp("keys")
    url = f"sqlite:///{folder}/jobs.db"
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.new_database()
    with job_server(url, folder, vad=SileroModel(), script=says_by_length(), furnish=_furnish) as made:
        yield made


@pytest.fixture
def key(server: JobServer) -> NewKeyText:
    """A new one, as somebody who owns the tenant made it."""

    def new(role: Role = Role.OWNER, tenant: str = DEFAULT_TENANT, **wish: Any) -> str:
        made = _keys(server.house.database).create(trusted(tenant), KeyWish("test", role, **wish))
        return server.run(made).text

    return new


@pytest.fixture
def asking(server: JobServer) -> Iterator[Callable[[str | None], httpx.Client]]:
    clients: list[httpx.Client] = []

    def client(key: str | None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        clients.append(httpx.Client(base_url=server.url, headers=headers, timeout=WAIT_S))
        return clients[-1]

    yield client
    for made in clients:
        made.close()


@pytest.fixture
def owner(asking: Callable[[str | None], httpx.Client], key: NewKeyText) -> httpx.Client:
    return asking(key())


def error_of(reply: httpx.Response, status: int) -> Any:
    assert reply.status_code == status, reply.text
    return reply.json()["error"]


def test_a_key_is_told_once_and_kept_as_a_hash(server: JobServer, owner: httpx.Client) -> None:
    reply = owner.post("/v1/keys", json={"name": "build server", "role": "service"})
    assert reply.status_code == 201, reply.text
    made = NewKeyOut(**reply.json())
    assert is_whole(made.key)
    assert made.key.startswith(made.hint)
    assert reply.headers["location"] == f"/v1/keys/{made.id}"
    shown = owner.get(f"/v1/keys/{made.id}")
    assert KeyOut(**shown.json()).status == "active"
    assert made.key not in shown.text
    assert made.key not in owner.get("/v1/keys").text

    async def everything() -> str:
        from sqlalchemy import text

        async with server.house.database.reading() as connection:
            return str((await connection.execute(text("SELECT * FROM api_keys"))).all())

    assert made.key[len(made.hint) + 1 :] not in server.run(everything())


def test_it_has_what_was_asked_for(owner: httpx.Client) -> None:
    asked = {
        "name": " kiosk ",
        "role": "service",
        "scopes": ["transcribe"],
        "models": [MODEL],
        "addresses": ["192.0.2.9/24", "2001:db8::1"],
        "tier": "pro",
        "expires_at": "2099-01-01T00:00:00Z",
    }
    made = NewKeyOut(**owner.post("/v1/keys", json=asked).json())
    assert (made.name, made.role, made.scopes, made.models) == ("kiosk", "service", ["transcribe"], [MODEL])
    assert made.addresses == ["192.0.2.0/24", "2001:db8::1/128"]
    assert (made.tier, made.expires_at, made.user_id) == ("pro", "2099-01-01T00:00:00.000Z", None)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "n", "role": "king"}, "role"),
        ({"name": "n", "scopes": ["fly"]}, "scopes"),
        ({"name": "n", "role": "viewer", "scopes": ["transcribe"]}, "scopes"),
        ({"name": "n", "addresses": ["nowhere"]}, "addresses"),
        ({"name": "n", "expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "n", "tier": "a b"}, "tier"),
        ({"name": "n", "extra": 1}, "extra"),
    ],
)
def test_what_cannot_be_is_422_and_names_the_field(
    owner: httpx.Client, asked: dict[str, Any], field: str
) -> None:
    assert error_of(owner.post("/v1/keys", json=asked), 422)["field"] == field


def test_nobody_makes_a_key_that_can_do_more(
    asking: Callable[[str | None], httpx.Client], key: NewKeyText
) -> None:
    admin = asking(key(Role.ADMIN, scopes=frozenset({Scope.KEYS, Scope.READ})))
    assert error_of(admin.post("/v1/keys", json={"name": "n", "role": "owner"}), 403)["field"] == "role"
    refused = error_of(admin.post("/v1/keys", json={"name": "n", "scopes": ["transcribe"]}), 403)
    assert "transcribe" in refused["message"]
    assert admin.post("/v1/keys", json={"name": "n"}).json()["scopes"] == [
        "keys:manage",
        "transcriptions:read",
    ]
    narrow = asking(key(Role.ADMIN, models=(MODEL,)))
    made = narrow.post("/v1/keys", json={"name": "n"})
    assert made.json()["models"] == [MODEL]
    assert (
        error_of(narrow.post("/v1/keys", json={"name": "n", "models": ["other"]}), 403)["field"] == "models"
    )
    strong = owner_key_id(asking(key()))
    assert error_of(admin.post(f"/v1/keys/{strong}/rotate"), 403)["kind"] == "permission_denied"


def owner_key_id(owner: httpx.Client) -> str:
    return str(owner.post("/v1/keys", json={"name": "strong"}).json()["id"])


def test_only_those_who_run_the_server_choose_a_tier(
    server: JobServer, asking: Callable[[str | None], httpx.Client], key: NewKeyText
) -> None:
    add_tenant(server, "acme")
    theirs = asking(key(tenant="acme"))
    refused = error_of(theirs.post("/v1/keys", json={"name": "n", "tier": "enterprise"}), 403)
    assert "tenants:manage" in refused["message"]


def add_tenant(server: JobServer, tenant: str) -> None:
    async def add() -> None:
        from sqlalchemy import text

        async with server.house.database.transaction() as connection:
            await connection.execute(
                text(
                    "INSERT INTO tenants (id, name, tier, created_at) VALUES (:id, :id, 'free', 0)"
                    " ON CONFLICT DO NOTHING"
                ),
                {"id": tenant},
            )

    server.run(add())


def test_a_list_in_pages_without_those_of_others(
    server: JobServer, owner: httpx.Client, asking: Callable[[str | None], httpx.Client], key: NewKeyText
) -> None:
    add_tenant(server, "acme")
    theirs = asking(key(tenant="acme")).post("/v1/keys", json={"name": "theirs"}).json()
    ours = [owner.post("/v1/keys", json={"name": f"k{n}"}).json()["id"] for n in range(3)]
    first = KeyPageOut(**owner.get("/v1/keys", params={"limit": 2}).json())
    assert [one.id for one in first.data] == ours[:0:-1]
    second = owner.get("/v1/keys", params={"limit": 100, "cursor": first.next_cursor}).json()
    listed = [one["id"] for one in second["data"]]
    assert listed[0] == ours[0]
    assert theirs["id"] not in listed
    unknown = "key_" + "0" * 32
    for path in (f"/v1/keys/{theirs['id']}", f"/v1/keys/{unknown}", "/v1/keys/nonsense"):
        told = error_of(owner.get(path), 404)
        assert (told["code"], told["message"]) == ("not_found", "there is no such key")
        assert error_of(owner.delete(path), 404)["message"] == "there is no such key"
        assert error_of(owner.post(f"{path}/rotate"), 404)["message"] == "there is no such key"


def until(condition: Callable[[], bool], within_s: float) -> None:
    give_up = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_a_revoked_key_lets_nobody_in_a_second_later_nor_do_its_tokens(
    owner: httpx.Client, asking: Callable[[str | None], httpx.Client]
) -> None:
    made = owner.post("/v1/keys", json={"name": "n"}).json()
    theirs = asking(made["key"])
    token = NewTokenOut(**theirs.post("/v1/auth/tokens").json())
    browser = asking(token.token)
    assert browser.get("/v1/models").status_code == 200
    assert owner.delete(f"/v1/keys/{made['id']}").status_code == 204
    assert owner.delete(f"/v1/keys/{made['id']}").status_code == 204
    until(lambda: theirs.get("/v1/models").status_code == 401, 1.5)
    assert error_of(theirs.get("/v1/models"), 401)["code"] == "revoked_credential"
    until(lambda: browser.get("/v1/models").status_code == 401, 1.5)
    assert owner.get(f"/v1/keys/{made['id']}").json()["status"] == "revoked"


def test_while_it_is_rotated_both_keys_are_good(
    owner: httpx.Client, asking: Callable[[str | None], httpx.Client]
) -> None:
    old = owner.post(
        "/v1/keys", json={"name": "n", "scopes": ["transcribe"], "addresses": ["127.0.0.0/8"]}
    ).json()
    new = owner.post(f"/v1/keys/{old['id']}/rotate", json={"overlap_s": 3600})
    assert new.status_code == 201
    kept = ("name", "role", "scopes", "addresses", "models", "user_id", "tier")
    assert [new.json()[name] for name in kept] == [old[name] for name in kept]
    for text in (old["key"], new.json()["key"]):
        assert asking(text).get("/v1/models").status_code == 200
    shown = owner.get(f"/v1/keys/{old['id']}").json()
    assert shown["replaced_by"] == new.json()["id"]
    assert shown["expires_at"] is not None
    assert error_of(owner.post(f"/v1/keys/{old['id']}/rotate"), 409)["kind"] == "conflict"
    at_once = owner.post(f"/v1/keys/{new.json()['id']}/rotate", json={"overlap_s": 0}).json()
    assert asking(at_once["key"]).get("/v1/models").status_code == 200
    until(lambda: asking(new.json()["key"]).get("/v1/models").status_code == 401, 1.5)


def test_a_scope_that_lacks_is_named(asking: Callable[[str | None], httpx.Client], key: NewKeyText) -> None:
    viewer = asking(key(Role.VIEWER))
    assert "keys:manage" in error_of(viewer.get("/v1/keys"), 403)["message"]
    with CLIP.open("rb") as file:
        refused = viewer.post("/v1/transcriptions", files={"file": file})
    assert "transcribe" in error_of(refused, 403)["message"]
    assert "transcribe" in error_of(viewer.post("/v1/auth/tokens"), 403)["message"]


def test_a_model_that_is_not_allowed_is_refused(
    asking: Callable[[str | None], httpx.Client], key: NewKeyText
) -> None:
    other = asking(key(models=("whisper-tiny",)))
    with CLIP.open("rb") as file:
        refused = other.post("/v1/transcriptions", files={"file": file})
    assert error_of(refused, 403)["field"] == "model"


def test_short_tokens_do_what_was_lent_and_no_more(
    asking: Callable[[str | None], httpx.Client], owner: httpx.Client
) -> None:
    asked = {"expires_in_s": 60, "scopes": ["transcriptions:read"]}
    made = owner.post("/v1/auth/tokens", json=asked)
    assert made.headers["cache-control"] == "no-store"
    reader = asking(made.json()["token"])
    assert reader.get("/v1/transcriptions").status_code == 200
    assert error_of(reader.get("/v1/keys"), 403)["field"] == "scope"
    assert error_of(reader.post("/v1/auth/tokens"), 403)["field"] == "scope"
    again = reader.post("/v1/auth/tokens", json={**asked, "expires_in_s": 3600}).json()
    assert again["expires_at"] <= made.json()["expires_at"]
    refused = owner.post("/v1/auth/tokens", json={"scopes": ["keys:manage"]})
    assert error_of(refused, 422)["kind"] == "unsupported_option"


def test_only_short_tokens_are_taken_from_the_address(
    server: JobServer, owner: httpx.Client, key: NewKeyText
) -> None:
    token = owner.post("/v1/auth/tokens", json={"scopes": ["transcriptions:read"]}).json()["token"]
    for name in ("token", "access_token"):
        assert httpx.get(f"{server.url}/v1/transcriptions", params={name: token}).status_code == 200
    refused = httpx.get(f"{server.url}/v1/transcriptions", params={"token": key()})
    assert error_of(refused, 401)["code"] == "malformed_credential"
    made_up = httpx.get(f"{server.url}/v1/transcriptions", params={"token": "anything"})
    assert made_up.status_code == 401


@pytest.mark.parametrize("way", ["Bearer {}", "Token {}", "bearer {}", "TOKEN  {}"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/transcriptions"])
def test_every_way_to_send_a_key(server: JobServer, key: NewKeyText, way: str, path: str) -> None:
    text = key()
    for headers in ({"Authorization": way.format(text)}, {"api-key": text}, {"X-API-Key": text}):
        assert httpx.get(f"{server.url}{path}", headers=headers).status_code == 200


def _address(server: JobServer, path: str) -> str:
    return server.url.replace("http", "ws") + path


@pytest.mark.parametrize(
    ("path", "subprotocols", "chosen"),
    [
        ("/v1/stream", ["voiceforge", "voiceforge.key.{}"], "voiceforge"),
        ("/v1/realtime", ["realtime", "openai-insecure-api-key.{}"], "realtime"),
        ("/v1/listen", ["token", "{}"], "token"),
        ("/v1/listen", ["bearer", "{}"], "bearer"),
    ],
)
def test_browsers_bring_keys_and_tokens_as_subprotocols(
    server: JobServer, owner: httpx.Client, key: NewKeyText, path: str, subprotocols: list[str], chosen: str
) -> None:
    token = owner.post("/v1/auth/tokens").json()["token"]
    for text in (key(), token):
        offered: Any = [name.format(text) for name in subprotocols]
        with connect(_address(server, path), subprotocols=offered) as socket:
            assert socket.subprotocol == chosen
    wrong: Any = [name.format("vft_wrong.wrong") for name in subprotocols]
    with pytest.raises(InvalidStatus) as refused, connect(_address(server, path), subprotocols=wrong):
        pass
    assert refused.value.response.status_code == 401


def test_a_token_in_the_address_of_a_socket(server: JobServer, owner: httpx.Client) -> None:
    token = owner.post("/v1/auth/tokens").json()["token"]
    with connect(_address(server, f"/v1/stream?token={token}&sample_rate=16000")) as socket:
        assert b"ready" in str(socket.recv()).encode()


def test_a_viewer_opens_no_socket(server: JobServer, key: NewKeyText) -> None:
    headers = {"Authorization": f"Bearer {key(Role.VIEWER)}"}
    for path in ("/v1/stream", "/v1/realtime", "/v1/listen"):
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(_address(server, path), additional_headers=headers),
        ):
            pass
        assert refused.value.response.status_code == 403


def test_a_client_secret_carries_its_maker(
    server: JobServer, owner: httpx.Client, asking: Callable[[str | None], httpx.Client]
) -> None:
    made = owner.post("/v1/keys", json={"name": "n"}).json()
    theirs = asking(made["key"])
    secret = theirs.post("/v1/realtime/client_secrets", json={}).json()["value"]
    headers = {"Authorization": f"Bearer {secret}"}
    with connect(_address(server, "/v1/realtime"), additional_headers=headers) as socket:
        assert "session.created" in str(socket.recv())
    refused = asking(secret).get("/v1/transcriptions")
    assert error_of(refused, 401)["code"] == "wrong_audience"
    owner.delete(f"/v1/keys/{made['id']}")

    def is_refused() -> bool:
        try:
            with connect(_address(server, "/v1/realtime"), additional_headers=headers):
                return False
        except InvalidStatus as error:
            return error.response.status_code == 401

    until(is_refused, 2)


def hear_all(socket: ClientConnection) -> None:
    while True:
        socket.recv(timeout=5)


@pytest.mark.parametrize(
    "path", ["/v1/stream", "/v1/realtime", "/v1/listen?encoding=linear16&sample_rate=16000"]
)
@pytest.mark.parametrize("by_token", [False, True])
def test_a_socket_is_closed_when_its_key_is_revoked(
    server: JobServer,
    owner: httpx.Client,
    asking: Callable[[str | None], httpx.Client],
    path: str,
    by_token: bool,
) -> None:
    made = owner.post("/v1/keys", json={"name": "n"}).json()
    text = asking(made["key"]).post("/v1/auth/tokens").json()["token"] if by_token else made["key"]
    headers = {"Authorization": f"Bearer {text}"}
    with connect(_address(server, path), additional_headers=headers) as socket:
        socket.send(bytes(3200)) if "realtime" not in path else socket.recv()
        owner.delete(f"/v1/keys/{made['id']}")
        with pytest.raises(ConnectionClosed) as closed:
            hear_all(socket)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "revoked_credential")


def test_the_clients_of_others_take_our_keys(server: JobServer, key: NewKeyText) -> None:
    text = key()
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=text, max_retries=0) as client:
        heard = client.audio.transcriptions.create(model=MODEL, file=CLIP)
        assert heard.text
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=text[:-1], max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.models.list()
    assert caught.value.code == "malformed_credential"


def test_deepgrams_client_takes_our_keys_and_grants(server: JobServer, key: NewKeyText) -> None:
    environment = deepgram.DeepgramClientEnvironment(
        base=server.url, production=server.url.replace("http", "ws"), agent=server.url, agent_rest=server.url
    )
    client = deepgram.DeepgramClient(api_key=key(), environment=environment)
    granted = client.auth.v1.tokens.grant(ttl_seconds=60)
    assert 55 < (granted.expires_in or 0) <= 60
    for one in (client, deepgram.DeepgramClient(access_token=granted.access_token, environment=environment)):
        heard: Any = one.listen.v1.media.transcribe_file(request=CLIP.read_bytes())
        assert heard.results.channels[0].alternatives[0].transcript


def test_deepgram_is_told_why_in_its_own_words(server: JobServer, key: NewKeyText) -> None:
    for text, told in (
        (None, "Invalid credentials."),
        ("vf_nonsense", "Invalid credentials: the API key is malformed: a character is wrong or missing."),
    ):
        headers = {"Authorization": f"Token {text}"} if text else {}
        for path in ("/v1/listen", "/v1/auth/grant"):
            reply = httpx.post(f"{server.url}{path}", headers=headers, content=b"x")
            assert (reply.status_code, reply.json()["err_msg"]) == (401, told)
    viewer = {"Authorization": f"Token {key(Role.VIEWER)}"}
    refused = httpx.post(f"{server.url}/v1/auth/grant", headers=viewer)
    assert (refused.status_code, refused.json()["err_code"]) == (403, "INSUFFICIENT_PERMISSIONS")
