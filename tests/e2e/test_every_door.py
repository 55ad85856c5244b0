"""Every route and socket of a real server, asked by everybody: each role, nobody, and another organisation.

The table says of each what it needs. A route that does not stand in it fails the test.
"""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

Run = Callable[..., "subprocess.CompletedProcess[str]"]

ROLES = ("owner", "admin", "member", "viewer", "service")
EVERYBODY = frozenset(ROLES)
HEADS = frozenset({"owner", "admin"})
# Who may do what, as docs/accounts.md says.
MAY: Mapping[str, frozenset[str]] = {
    "transcribe": EVERYBODY - {"viewer"},
    "transcriptions:read": EVERYBODY,
    "transcriptions:write": EVERYBODY - {"viewer"},
    "webhooks:manage": EVERYBODY - {"viewer"},
    "cache:clear": EVERYBODY - {"viewer", "service"},
    "usage:read": EVERYBODY - {"service"},
    "keys:manage": HEADS,
    "users:manage": HEADS,
    "audit:read": HEADS,
    "data:manage": frozenset({"owner"}),
    "tenants:manage": HEADS,
}
ANYBODY = "anybody"
"""Nobody is asked who they are."""
KNOWN = "known"
"""Whoever is known."""
SERVER = "server"
"""Whoever may see what was used, in the organisation that runs the server."""
UNKNOWN = "0" * 32
WAIT_S = 60
SHARED = ("model", "tenant", "elsewhere")
"""Models are everybody's; the tenant that is asked for is the other organisation itself; the word that names
the one that runs the server is a common one."""
SENTENCE = "a sentence nobody would guess"


@dataclass(frozen=True)
class Door:
    """
    needs: a scope, or a word above.
    ok: what those are answered that may; for a path with ids, when asked about one that was never given.
    reads: with its own id, the answer is 200 instead: asking changes nothing.
    ids: the names of what fills the path.
    """

    needs: str
    ok: int = 200
    body: Any = None
    files: bool = False
    raw: bool = False
    ids: tuple[str, ...] = ()
    reads: bool = False
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


TUS = {"Tus-Resumable": "1.0.0"}
JOB = ("job",)
DOORS: Mapping[str, Door] = {
    "GET /health": Door(ANYBODY),
    "GET /health/live": Door(ANYBODY),
    "GET /health/ready": Door(ANYBODY),
    "GET /": Door(KNOWN),
    "GET /stats": Door(SERVER),
    "GET /metrics": Door(SERVER),
    "DELETE /cache": Door("cache:clear"),
    "GET /v1/usage": Door("usage:read"),
    "GET /v1/audit": Door("audit:read"),
    "GET /v1/audit/export": Door("audit:read"),
    "GET /v1/privacy/users/{user_id}/export": Door("data:manage", 404, ids=("user",)),
    "GET /v1/privacy/tenants/{tenant_id}/export": Door("data:manage", 404, ids=("elsewhere",)),
    "POST /v1/privacy/users/{user_id}/erase": Door("data:manage", 404, ids=("user",)),
    "POST /v1/privacy/tenants/{tenant_id}/erase": Door("data:manage", 404, ids=("elsewhere",)),
    # Recordings
    "POST /v1/transcriptions": Door("transcribe", files=True),
    "POST /transcribe": Door("transcribe", files=True),
    "POST /v1/audio/transcriptions": Door("transcribe", files=True),
    "POST /v1/audio/translations": Door("transcribe", 422, files=True),
    "POST /v1/listen": Door("transcribe", raw=True),
    "GET /v1/models": Door(KNOWN),
    "GET /v1/models/{model_id}": Door(KNOWN, 404, ids=("model",), reads=True),
    "POST /v1/models/{model_id}/reload": Door("tenants:manage", 404, ids=("model",)),
    # Jobs
    "GET /v1/transcriptions": Door("transcriptions:read"),
    "GET /v1/transcriptions/search": Door("transcriptions:read", query={"q": "ever tried"}),
    "GET /v1/transcriptions/{transcription_id}": Door("transcriptions:read", 404, ids=JOB, reads=True),
    "DELETE /v1/transcriptions/{transcription_id}": Door("transcriptions:write", 404, ids=JOB),
    "GET /v1/transcriptions/{transcription_id}/result": Door("transcriptions:read", 404, ids=JOB, reads=True),
    "GET /v1/transcriptions/{transcription_id}/events": Door("transcriptions:read", 404, ids=JOB, reads=True),
    "POST /v1/transcriptions/{transcription_id}/cancel": Door("transcriptions:write", 404, ids=JOB),
    "POST /v1/transcriptions/{transcription_id}/retry": Door("transcriptions:write", 404, ids=JOB),
    "POST /v1/batches": Door("transcribe", 202, body={"items": [{"url": "http://127.0.0.1:9/x.wav"}]}),
    "GET /v1/batches": Door("transcriptions:read"),
    "GET /v1/batches/{batch_id}": Door("transcriptions:read", 404, ids=("batch",), reads=True),
    "DELETE /v1/batches/{batch_id}": Door("transcriptions:write", 404, ids=("batch",)),
    # Uploads
    "POST /v1/uploads": Door("transcribe", 201, headers={**TUS, "Upload-Length": "5"}),
    "OPTIONS /v1/uploads": Door(KNOWN, 204),
    "HEAD /v1/uploads/{upload_id}": Door("transcribe", 404, ids=("upload",), reads=True, headers=TUS),
    "PATCH /v1/uploads/{upload_id}": Door(
        "transcribe",
        404,
        ids=("upload",),
        headers={**TUS, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"},
    ),
    "DELETE /v1/uploads/{upload_id}": Door("transcribe", 404, ids=("upload",), headers=TUS),
    # Webhooks
    "POST /v1/webhooks": Door("webhooks:manage", 201, body={"url": "http://127.0.0.1:9/hook"}),
    "GET /v1/webhooks": Door("webhooks:manage"),
    "GET /v1/webhooks/{webhook_id}": Door("webhooks:manage", 404, ids=("webhook",), reads=True),
    "PATCH /v1/webhooks/{webhook_id}": Door("webhooks:manage", 404, body={"enabled": True}, ids=("webhook",)),
    "DELETE /v1/webhooks/{webhook_id}": Door("webhooks:manage", 404, ids=("webhook",)),
    "POST /v1/webhooks/{webhook_id}/rotate": Door("webhooks:manage", 404, ids=("webhook",)),
    "POST /v1/webhooks/{webhook_id}/test": Door("webhooks:manage", 404, ids=("webhook",)),
    "GET /v1/webhooks/{webhook_id}/deliveries": Door("webhooks:manage", 404, ids=("webhook",), reads=True),
    "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay": Door(
        "webhooks:manage", 404, ids=("webhook", "delivery")
    ),
    # Keys and tokens
    "POST /v1/keys": Door("keys:manage", 201, body={"name": "another"}),
    "GET /v1/keys": Door("keys:manage"),
    "GET /v1/keys/{key_id}": Door("keys:manage", 404, ids=("key",), reads=True),
    "DELETE /v1/keys/{key_id}": Door("keys:manage", 404, ids=("key",)),
    "POST /v1/keys/{key_id}/rotate": Door("keys:manage", 404, ids=("key",)),
    "POST /v1/auth/tokens": Door("transcribe", 201),
    "POST /v1/auth/grant": Door("transcribe"),
    "POST /v1/realtime/client_secrets": Door("transcribe", body={}),
    "POST /v1/realtime/transcription_sessions": Door("transcribe", body={}),
    # People
    "POST /v1/auth/register": Door(ANYBODY, 403, body={"email": "x@example.org", "password": SENTENCE}),
    "POST /v1/auth/verify": Door(ANYBODY, 422, body={"token": "vf1_nothing"}),
    "POST /v1/auth/login": Door(ANYBODY, 401, body={"email": "x@example.org", "password": SENTENCE}),
    "POST /v1/auth/refresh": Door(ANYBODY, 401, body={"refresh_token": "nothing"}),
    "POST /v1/auth/logout": Door(ANYBODY, 401, body={"refresh_token": "nothing"}),
    "POST /v1/auth/password/forgot": Door(ANYBODY, 202, body={"email": "x@example.org"}),
    "POST /v1/auth/password/reset": Door(ANYBODY, 422, body={"token": "nothing", "password": SENTENCE}),
    "GET /v1/auth/oidc/login": Door(ANYBODY, 404),
    "GET /v1/auth/oidc/callback": Door(ANYBODY, 404),
    "GET /.well-known/jwks.json": Door(ANYBODY),
    "GET /v1/me": Door(KNOWN),
    # These keys are nobody's own, and programs have no password.
    "POST /v1/auth/password": Door(
        KNOWN, 403, body={"current_password": SENTENCE, "new_password": SENTENCE + "!"}
    ),
    "POST /v1/auth/logout/everywhere": Door(KNOWN, 403),
    "GET /v1/users": Door("users:manage"),
    "POST /v1/users": Door("users:manage", 202, body={"email": "EACH@example.org"}),
    "GET /v1/users/invitations": Door("users:manage"),
    "DELETE /v1/users/invitations/{email}": Door("users:manage", 404, ids=("invitation",)),
    "GET /v1/users/{user_id}": Door("users:manage", 404, ids=("user",), reads=True),
    "PATCH /v1/users/{user_id}": Door("users:manage", 404, body={"disabled": True}, ids=("user",)),
    "DELETE /v1/users/{user_id}": Door("users:manage", 404, ids=("user",)),
    "POST /v1/users/{user_id}/password-reset": Door("users:manage", 404, ids=("user",)),
    "GET /v1/tenants": Door("tenants:manage"),
    "POST /v1/tenants": Door("tenants:manage", 201, body={"name": "another"}),
    "GET /v1/tenants/{tenant_id}": Door("tenants:manage", 404, ids=("tenant",), reads=True),
    "PATCH /v1/tenants/{tenant_id}": Door("tenants:manage", 404, body={"tier": "pro"}, ids=("tenant",)),
}
NEVER = {
    "job": f"tr_{UNKNOWN}",
    "batch": f"bat_{UNKNOWN}",
    "upload": f"up_{UNKNOWN}",
    "webhook": f"wh_{UNKNOWN}",
    "delivery": f"dlv_{UNKNOWN}",
    "key": f"key_{UNKNOWN}",
    "user": f"us_{UNKNOWN}",
    "tenant": f"tn_{UNKNOWN}",
    "elsewhere": f"tn_{UNKNOWN}",
    "invitation": "nobody@example.org",
    "model": "no-such-model",
}


@dataclass(frozen=True)
class House:
    """A server, somebody of each role, somebody of another organisation, and what there is to ask for.

    foreign: the key of the other organisation's owner. ours: the ids of what belongs to the first one.
    """

    url: str
    client: httpx.Client
    clip: bytes
    keys: Mapping[str, str]
    foreign: str
    ours: Mapping[str, str]

    def ask(self, name: str, key: str | None, ids: Mapping[str, str] = NEVER) -> httpx.Response:
        door = DOORS[name]
        method, path = name.split(" ", 1)
        for place in door.ids:
            path = path[: path.index("{")] + ids[place] + path[path.index("}") + 1 :]
        more: dict[str, Any] = {}
        if door.files:
            more["files"] = {"file": ("beckett.wav", self.clip)}
        elif door.raw:
            more["content"] = self.clip
        elif door.body is not None:
            each = f"n{next(_NUMBERS)}"
            more["json"] = json.loads(json.dumps(door.body).replace("EACH", each))
        headers = dict(door.headers) | ({} if key is None else {"Authorization": f"Bearer {key}"})
        return self.client.request(method, path, params=door.query, headers=headers, **more)


_NUMBERS = itertools.count()


@pytest.fixture
def house(
    start: Callable[..., subprocess.Popen[str]], voiceforge: Run, clips: dict[str, Path]
) -> Iterator[House]:
    settings = {
        "VOICEFORGE_AUTH__REQUIRED": "true",
        "VOICEFORGE_AUTH__FAILURES_PER_MINUTE": "0",
        "VOICEFORGE_WEBHOOKS__ALLOW_HOSTS": "127.0.0.1",
        "VOICEFORGE_FETCH__ALLOW_HOSTS": "127.0.0.1",
    }
    first = json.loads(voiceforge("init", "--json").stdout)["key"]
    process = start("serve", "--port", "0", settings=settings)
    assert process.stdout is not None
    url = process.stdout.readline().split()[3]
    clip = clips["beckett"].read_bytes()
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {first}"}, timeout=WAIT_S) as owner:

        def made(path: str, **body: Any) -> dict[str, Any]:
            reply = owner.post(path, json=body)
            assert reply.is_success, f"{path}: {reply.text}"
            return dict(reply.json()) if reply.content else {}

        keys = {role: made("/v1/keys", name=role, role=role)["key"] for role in ROLES}
        job = owner.post("/v1/transcriptions", data={"mode": "async"}, files={"file": ("a.wav", clip)}).json()
        owner.get(f"/v1/transcriptions/{job['id']}/events")
        upload = owner.post("/v1/uploads", headers={"Tus-Resumable": "1.0.0", "Upload-Length": "5"})
        webhook = made("/v1/webhooks", url="http://127.0.0.1:9/hook")["id"]
        made("/v1/users", email="ann@example.org", role="viewer")
        tenant = made("/v1/tenants", name="Acme", tier="enterprise")["id"]
        ours = {
            "job": job["id"],
            "batch": made("/v1/batches", items=[{"url": "http://127.0.0.1:9/x.wav"}])["id"],
            "upload": upload.headers["location"].rpartition("/")[2],
            "webhook": webhook,
            "delivery": made(f"/v1/webhooks/{webhook}/test")["id"],
            "key": made("/v1/keys", name="theirs")["id"],
            "user": made("/v1/users", email="robot@example.org", role="service")["id"],
            "invitation": "ann@example.org",
            "tenant": tenant,
            "elsewhere": "default",
            "model": "moonshine-tiny-en",
        }
    foreign = voiceforge("keys", "create", "theirs", "--role", "owner", "--tenant", tenant).stdout.strip()
    with httpx.Client(base_url=url, timeout=WAIT_S) as client:
        yield House(url, client, clip, keys, foreign, ours)


def allowed(door: Door) -> frozenset[str]:
    if door.needs in (ANYBODY, KNOWN):
        return EVERYBODY
    return MAY["usage:read"] if door.needs == SERVER else MAY[door.needs]


def test_every_route_for_every_role_for_nobody_and_for_others(house: House) -> None:
    """One test, since all of it is one server's: each wrong answer is a line of what is told."""
    headers = {"Authorization": f"Bearer {house.keys['viewer']}"}
    paths = house.client.get("/openapi.json", headers=headers).json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert routes - set(DOORS) == set(), "say of new routes what they need"
    assert set(DOORS) - routes == set(), "these are gone"
    wrong: list[str] = []

    def expect(who: str, name: str, reply: httpx.Response, status: int, told: str = "") -> None:
        if reply.status_code != status or (told and told not in reply.text):
            wrong.append(f"{name} for {who}: {reply.status_code}, not {status} {told}: {reply.text[:200]}")

    for name, door in DOORS.items():
        nobody = house.ask(name, None)
        expect("nobody", name, nobody, door.ok if door.needs == ANYBODY else 401)
        for role in ROLES:
            reply = house.ask(name, house.keys[role])
            if role in allowed(door):
                expect(role, name, reply, door.ok)
            else:
                scope = "usage:read" if door.needs == SERVER else door.needs
                expect(role, name, reply, 403, "" if name.startswith("HEAD") else scope)
            if door.reads:
                own = house.ask(name, house.keys[role], house.ours)
                expect(role, f"{name} (its own)", own, 200 if role in allowed(door) else 403)
    assert not wrong, "\n".join(wrong)


def test_what_belongs_to_others_looks_absent(house: House) -> None:
    wrong: list[str] = []
    for name, door in DOORS.items():
        runs_server = door.needs in (SERVER, "tenants:manage")
        never = house.ask(name, house.foreign)
        if never.status_code != (403 if runs_server else door.ok):
            wrong.append(f"{name}: {never.status_code}, not {door.ok}: {never.text[:200]}")
        leaks = [place for place, own in house.ours.items() if place not in SHARED and own in never.text]
        if leaks:
            wrong.append(f"{name} tells {leaks}")
        if door.ids and door.ids != ("model",):
            theirs = house.ask(name, house.foreign, house.ours)
            if _plain(theirs, house.ours) != _plain(never, NEVER):
                wrong.append(
                    f"{name}: {theirs.status_code} {theirs.text[:200]}, for others {never.text[:200]}"
                )
    assert not wrong, "\n".join(wrong)
    # And nothing of it was changed.
    for name, door in DOORS.items():
        if door.reads:
            assert house.ask(name, house.keys["owner"], house.ours).status_code == 200, name


def _plain(reply: httpx.Response, ids: Mapping[str, str]) -> tuple[int, str]:
    """Without the ids that were asked for, and that of the request."""
    text = reply.text.replace(reply.headers["x-request-id"], "")
    for place, own in ids.items():
        text = text.replace(own, place)
    return reply.status_code, text


SOCKETS = ("/v1/stream", "/v1/realtime", "/v1/listen")


def opened(house: House, path: str, key: str | None) -> int:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        with connect(house.url.replace("http", "ws") + path, additional_headers=headers):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def test_every_socket_for_every_role_for_nobody_and_for_others(house: House) -> None:
    for path in SOCKETS:
        assert opened(house, path, None) == 401
        for role in ROLES:
            assert opened(house, path, house.keys[role]) == (101 if role in MAY["transcribe"] else 403)
        assert opened(house, path, house.foreign) == 101
    headers = {"Authorization": f"Bearer {house.keys['member']}"}
    with connect(house.url.replace("http", "ws") + "/v1/stream", additional_headers=headers) as socket:
        token = json.loads(socket.recv())["resume_token"]
        resume = f"/v1/stream?resume={token}&after=0"
        assert opened(house, resume, house.foreign) == 404
        assert opened(house, resume, house.keys["viewer"]) == 403
        assert opened(house, resume, house.keys["service"]) == 101
