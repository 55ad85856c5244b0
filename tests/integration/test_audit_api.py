"""What is done over HTTP stands in the audit log, and who may reads it; on both databases."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import httpx
import pytest
from sqlalchemy import insert

from voiceforge.infra.db.database import Database
from voiceforge.infra.db.tables_access import users
from voiceforge.services.access import DEFAULT_TENANT, Role, trusted
from voiceforge.services.audit import Audit
from voiceforge.services.authentication import Authentication
from voiceforge.services.container import Services
from voiceforge.services.key_holders import KeyHolders
from voiceforge.services.keys import Keys, KeyWish
from voiceforge.services.personal_data import PersonalData
from voiceforge.services.refused_tries import RefusedTries
from voiceforge.services.retention import RetentionSweep
from voiceforge.services.samples import sample_recordings
from voiceforge.services.short_tokens import ShortTokens
from voiceforge.speech.vad.silero import SileroModel
from voiceforge.testing.fake_engine import says_by_length
from voiceforge.testing.job_house import JobHouse
from voiceforge.testing.job_server import JobServer, job_server
from voiceforge.testing.postgres_server import PostgresServer

CLIP = sample_recordings()[0]
WAIT_S = 30
SECRET = b"k" * 32
Asking = Callable[..., httpx.Client]


_REFUSED: WeakKeyDictionary[Database, RefusedTries] = WeakKeyDictionary()
"""Of each server, which has them written once a minute."""


def _furnish(services: Services, house: JobHouse) -> Services:
    refused = RefusedTries(house.database)
    authentication = Authentication(
        required=True,
        holders=KeyHolders(house.database, SECRET),
        short_tokens=ShortTokens(b"t" * 32),
        on_refused=refused.add,
    )
    assert services.uploads is not None
    _REFUSED[house.database] = refused
    return replace(
        services,
        authentication=authentication,
        keys=Keys(house.database, SECRET),
        audit=Audit(house.database),
        personal_data=PersonalData(
            database=house.database,
            blobs=house.blobs,
            jobs=house.jobs,
            uploads=services.uploads,
            retention=RetentionSweep(database=house.database, blobs=house.blobs, jobs=house.jobs),
        ),
    )


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobServer]:
    folder = tmp_path_factory.mktemp("audit")
    url = f"sqlite:///{folder}/jobs.db"
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.new_database()
    with job_server(url, folder, vad=SileroModel(), script=says_by_length(), furnish=_furnish) as made:
        made.run(_add_people(made.house.database))
        yield made


async def _add_people(database: Database) -> None:
    async with database.transaction() as connection:
        for role in ("owner", "admin", "member"):
            row = {
                "id": f"us_{role}",
                "tenant": DEFAULT_TENANT,
                "email": f"{role}@x.example",
                "role": role,
                "created_at": 1.0,
            }
            await connection.execute(insert(users).values(row))


@pytest.fixture
def asking(server: JobServer) -> Iterator[Asking]:
    """With a key of the person who has that role."""
    clients: list[httpx.Client] = []

    def client(role: Role) -> httpx.Client:
        who = replace(trusted(), user_id=f"us_{role}", role=Role.OWNER)
        made = server.run(Keys(server.house.database, SECRET).create(who, KeyWish("test", role)))
        headers = {"Authorization": f"Bearer {made.text}"}
        clients.append(httpx.Client(base_url=server.url, headers=headers, timeout=WAIT_S))
        return clients[-1]

    yield client
    for made in clients:
        made.close()


def entries(client: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    reply = client.get("/v1/audit", params={"limit": 100, **query})
    assert reply.status_code == 200, reply.text
    data: list[dict[str, Any]] = reply.json()["data"]
    return data


def transcribed(client: httpx.Client) -> str:
    reply = client.post(
        "/v1/transcriptions", files={"file": CLIP.read_bytes()}, data={"mode": "async"}
    ).raise_for_status()
    job_id = str(reply.json()["id"])
    with client.stream("GET", f"/v1/transcriptions/{job_id}/events") as events:
        for line in events.iter_lines():
            if "transcription.completed" in line:
                return job_id
    raise AssertionError("it was not completed")


def test_who_leads_and_reads_what_another_had_transcribed_is_noted(asking: Asking) -> None:
    owner, admin, member = (asking(role) for role in (Role.OWNER, Role.ADMIN, Role.MEMBER))
    job_id = transcribed(member)
    member.get(f"/v1/transcriptions/{job_id}/result").raise_for_status()
    assert entries(owner, target=job_id) == []
    request_id = "a-request-of-mine"
    admin.get(f"/v1/transcriptions/{job_id}/result", headers={"X-Request-ID": request_id}).raise_for_status()
    (read,) = entries(owner, target=job_id)
    assert (read["action"], read["actor"]["kind"], read["details"]) == (
        "transcription.read",
        "key",
        {"user": "us_admin"},
    )
    assert (read["request_id"], read["address"]) == (request_id, "127.0.0.1")
    with admin.stream("GET", f"/v1/transcriptions/{job_id}/events") as events:
        assert any("transcription.completed" in line for line in events.iter_lines())
    assert [one["action"] for one in entries(owner, target=job_id)] == ["transcription.read"] * 2
    word = member.get(f"/v1/transcriptions/{job_id}/result").json()["text"].split()[0].strip(".,")
    assert member.get("/v1/transcriptions/search", params={"q": word}).json()["data"]
    assert admin.get("/v1/transcriptions/search", params={"q": word}).json()["data"]
    (searched,) = entries(owner, action="transcription.searched")
    assert searched["details"] == {"found": [job_id], "user": "us_admin"}
    member.delete(f"/v1/transcriptions/{job_id}").raise_for_status()
    assert entries(owner, target=job_id)[0]["action"] == "transcription.erased"


def test_changes_are_noted_with_what_was_changed_and_no_secret(asking: Asking) -> None:
    owner = asking(Role.OWNER)
    hook = owner.post("/v1/webhooks", json={"url": "https://93.184.216.34/secretpath"}).json()
    path = f"/v1/webhooks/{hook['id']}"
    owner.patch(path, json={"enabled": False}).raise_for_status()
    rotated = owner.post(f"{path}/rotate").json()
    owner.delete(path).raise_for_status()
    told = entries(owner, target=hook["id"])
    assert [one["action"] for one in told] == [
        "webhook.removed",
        "webhook.rotated",
        "webhook.changed",
        "webhook.added",
    ]
    assert told[2]["details"]["fields"] == ["enabled"]
    text = json.dumps(entries(owner))
    assert hook["secret"] not in text
    assert rotated["secret"] not in text
    assert "secretpath" not in text


def test_pages_filters_and_exports_agree(asking: Asking) -> None:
    owner = asking(Role.OWNER)
    for _ in range(3):
        key_id = owner.post("/v1/keys", json={"name": "n"}).json()["id"]
        owner.delete(f"/v1/keys/{key_id}").raise_for_status()
    everything = entries(owner)
    first = owner.get("/v1/audit", params={"limit": 4}).json()
    second = owner.get("/v1/audit", params={"limit": 100, "cursor": first["next_cursor"]}).json()
    assert [one["number"] for one in first["data"] + second["data"]] == [one["number"] for one in everything]
    assert second["next_cursor"] is None
    assert {one["action"] for one in entries(owner, action="key.")} == {"key.created", "key.revoked"}
    assert entries(owner, action="key.revoked,nothing.else")[0]["target"] == key_id
    assert entries(owner, **{"from": "2100-01-01T00:00:00Z"}) == []
    lines = owner.get("/v1/audit/export").text.splitlines()
    assert [json.loads(line)["number"] for line in lines] == [one["number"] for one in reversed(everything)]
    reply = owner.get("/v1/audit/export", params={"format": "csv"})
    assert reply.headers["content-type"].startswith("text/csv")
    assert [row["hash"] for row in csv.DictReader(reply.text.splitlines())] == [
        json.loads(line)["hash"] for line in lines
    ]
    for query in ({"limit": 0}, {"cursor": "x"}, {"from": "today"}, {"action": ","}, {"other": 1}):
        assert owner.get("/v1/audit", params=query).status_code == 422, query


def test_a_member_reads_no_log_and_erases_nobody(asking: Asking) -> None:
    member, admin, owner = (asking(role) for role in (Role.MEMBER, Role.ADMIN, Role.OWNER))
    for path in ("/v1/audit", "/v1/audit/export"):
        assert member.get(path).status_code == 403
        assert admin.get(path).status_code == 200
    for client in (member, admin):
        assert client.post("/v1/privacy/users/us_member/erase").status_code == 403
        assert client.post("/v1/privacy/tenants/default/erase").status_code == 403
    assert owner.post("/v1/privacy/users/us_owner/erase").status_code == 409
    assert owner.post("/v1/privacy/users/nobody!/erase").status_code == 404


def test_who_is_not_let_in_is_counted(server: JobServer, asking: Asking) -> None:
    owner = asking(Role.OWNER)
    for _ in range(3):
        assert httpx.get(f"{server.url}/v1/audit", headers={"X-API-Key": "wrong"}).status_code == 401
    assert server.run(_REFUSED[server.house.database].tell()) == 1
    (told,) = entries(owner, action="sign_in.refused")
    assert (told["actor"], told["address"]) == ({"kind": "nobody", "id": None}, "127.0.0.1")
    assert told["details"] == {"code": "invalid_api_key", "count": 3}


def test_a_person_is_erased_over_http(asking: Asking) -> None:
    owner, member = asking(Role.OWNER), asking(Role.MEMBER)
    job_id = transcribed(member)
    erased = owner.post("/v1/privacy/users/us_member/erase").raise_for_status().json()
    assert (erased["transcriptions"], erased["person"]) == (1, True)
    assert owner.get(f"/v1/transcriptions/{job_id}").status_code == 404
    assert owner.post("/v1/privacy/users/us_member/erase").json()["person"] is False
