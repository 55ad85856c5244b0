"""What it costs to know who calls, and how soon a revoked key is refused elsewhere.

One server with a database takes requests with and without a key, in turns; its CPU time is taken of each
turn. Then two servers on one database: a key is revoked through the one while it is used at the other.

    python benchmarks/auth_overhead.py --rounds 15 --json build/bench/auth_overhead.json
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from figures import Bound, Report, median, parser, row
from processes import environment, serving, voiceforge
from watches import tree_cpu_s

from voiceforge.api.http.auth import Authenticate
from voiceforge.api.http.errors import ErrorReplies
from voiceforge.api.native.errors import NativeErrors
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.migrate import Migrations
from voiceforge.services.access import OWNER
from voiceforge.services.authentication import Authentication
from voiceforge.services.key_holders import KeyHolders
from voiceforge.services.keys import Keys, KeyWish
from voiceforge.services.short_tokens import ShortTokens

_PATH = "/v1/auth/tokens"
_REQUESTS = 400
_CALLS = 5000
_ASK_EVERY_S = 0.005
_SECRET = b"s" * 32


def main() -> None:
    options = parser(__doc__, rounds=15).parse_args()
    report = Report("auth_overhead")
    with tempfile.TemporaryDirectory() as name:
        env = environment(Path(name) / "data")
        subprocess.run([*voiceforge(), "init"], env=env, check=True, capture_output=True)
        turns = _turns(env, options.rounds)
        late = _revocations(env, options.rounds)
        costs = asyncio.run(_costs(Path(name)))
    report.details |= {"cpu_ms_per_request": turns, "revoked_s": late, "middleware_us": costs}
    bare, keyed = median(turns["nobody"]), median(turns["key"])
    report.rows += [
        row(
            "a request with a key over one without: CPU of the server, median",
            keyed - bare,
            "ms",
            reference=f"{bare:.3g} ms without",
            bound=Bound(1, "at most"),
        ),
        row("… with a short-lived token", median(turns["token"]) - bare, "ms", bound=Bound(1, "at most")),
        row(
            "finding out who calls, in the middleware, median: nobody, where that is enough",
            costs["nobody"],
            "µs",
        ),
        row("… a key that was known a moment ago", costs["key"], "µs"),
        row("… a key that is looked up in SQLite (each 0.8 s)", costs["looked up"], "µs"),
        row("… a key with a slip in it", costs["slip"], "µs"),
        row(
            "a key revoked at one server is refused at the other, longest",
            max(late),
            "s",
            reference=f"{median(late):.2f} s median",
            bound=Bound(1, "at most"),
        ),
    ]
    report.finish(options.json)


def _new_key(env: dict[str, str]) -> dict[str, Any]:
    command = [*voiceforge(), "keys", "create", "bench", "--json"]
    made = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return dict(json.loads(made.stdout))


def _turns(env: dict[str, str], rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds of the server for each request, of each turn."""
    key = _new_key(env)["key"]
    found: dict[str, list[float]] = {"nobody": [], "key": [], "token": []}
    with serving(env) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        token = client.post(_PATH, headers={"Authorization": f"Bearer {key}"}).json()["token"]
        headers = {
            "nobody": {"Authorization": "Bearer sk-000000000000000000000000000000000000000000000000"},
            "key": {"Authorization": f"Bearer {key}"},
            "token": {"Authorization": f"Bearer {token}"},
        }
        for _ in range(rounds + 1):
            for who in random.sample(list(found), len(found)):
                before = tree_cpu_s(server.pid)
                for _ in range(_REQUESTS):
                    client.get("/v1/transcriptions/none", headers=headers[who])
                found[who].append((tree_cpu_s(server.pid) - before) * 1000 / _REQUESTS)
    return {who: each[1:] for who, each in found.items()}


def _revocations(env: dict[str, str], rounds: int) -> list[float]:
    """Seconds from the answer that a key is revoked to the first refusal at the other server."""
    owner = {"Authorization": f"Bearer {_new_key(env)['key']}"}
    found = []
    with (
        serving(env) as one,
        serving(env) as other,
        httpx.Client(base_url=one.url, headers=owner, timeout=60) as here,
        httpx.Client(base_url=other.url, timeout=60) as there,
    ):
        for _ in range(rounds):
            made = here.post("/v1/keys", json={"name": "bench"}).json()
            headers = {"Authorization": f"Bearer {made['key']}"}
            used_until = time.monotonic() + random.uniform(0.5, 2.5)
            while time.monotonic() < used_until:
                assert there.get("/", headers=headers).status_code == 200
                time.sleep(_ASK_EVERY_S)
            here.delete(f"/v1/keys/{made['id']}").raise_for_status()
            revoked_at = time.monotonic()
            while there.get("/", headers=headers).status_code != 401:
                time.sleep(_ASK_EVERY_S)
            found.append(time.monotonic() - revoked_at)
    return found


async def _costs(folder: Path) -> dict[str, float]:
    database = Database(f"sqlite:///{folder}/costs.db")
    await Migrations(database).upgrade()
    made = await Keys(database, _SECRET).create(OWNER, KeyWish("bench"))

    def authentication(**more: Any) -> Authentication:
        holders = KeyHolders(database, _SECRET)
        return Authentication(
            holders=holders, short_tokens=ShortTokens(_SECRET), failures_per_minute=0, **more
        )

    passing = iter(range(10**9))
    key = made.text
    found = {
        "nobody": await _median_us(authentication(), None),
        "key": await _median_us(authentication(), key),
        # For it, more than 0.8 s pass between any two calls.
        "looked up": await _median_us(authentication(monotonic=lambda: float(next(passing))), key),
        "slip": await _median_us(authentication(), key[:-1] + "!"),
    }
    await database.close()
    return found


async def _median_us(authentication: Authentication, key: str | None) -> float:
    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        return

    async def send(message: Any) -> None:
        return

    app = Authenticate(nothing, authentication, ErrorReplies((NativeErrors(),)))
    headers = [] if key is None else [(b"authorization", f"Bearer {key}".encode())]
    took = []
    for _ in range(_CALLS):
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/v1/models",
            "query_string": b"",
            "headers": headers,
            "client": ("192.0.2.1", 5),
        }
        began = time.perf_counter_ns()
        await app(scope, None, send)  # type: ignore[arg-type]  # nothing is received
        took.append((time.perf_counter_ns() - began) / 1000)
    await authentication.close()
    return median(took)


if __name__ == "__main__":
    main()
