"""Whether exactly as many requests pass as may, and what it costs to count them.

Two servers that share a Redis, with a limit of 100 a minute: 64 clients, half at each, ask as fast as they
can, with one key. Then, in this process, what the middleware takes of a request that does nothing else.

    python benchmarks/rate_limits.py --rounds 3 --json build/bench/rate_limits.json
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from figures import Bound, Report, Row, median, parser, row
from processes import environment, voiceforge

from voiceforge.api.http.auth import CALLER
from voiceforge.api.http.errors import ErrorReplies
from voiceforge.api.http.rate_limits import RateLimits
from voiceforge.api.native.errors import NativeErrors
from voiceforge.infra.limiter.base import Limiter
from voiceforge.infra.limiter.memory import MemoryLimiter
from voiceforge.infra.limiter.redis import RedisLimiter
from voiceforge.services.access import Caller, Role, scopes_of
from voiceforge.services.limits import Limits
from voiceforge.services.tiers import Tier, Tiers
from voiceforge.telemetry.metrics import Metrics
from voiceforge.testing.redis_server import find_redis, redis_server

MOST = 100
CLIENTS = 64
ASKED_EACH = 10
_CALLS = 5000
_START_S = 60.0


def main() -> None:
    options = parser(__doc__, rounds=3).parse_args()
    report = Report("rate_limits")
    if find_redis() is None:
        raise SystemExit("there is no Redis server here")
    passed, waits = [], []
    with tempfile.TemporaryDirectory() as name:
        for number in range(options.rounds):
            folder = Path(name) / str(number)
            folder.mkdir()
            found = exactness(folder)
            passed.append(found.passed)
            waits.append(found.latency_ms)
            report.details[f"exactness_{number}"] = asdict(found)
        report.rows.append(
            Row(
                f"{CLIENTS} clients, 2 servers, {MOST} a minute: requests that pass, each round",
                "–",
                ", ".join(map(str, passed)),
                f"{MOST}",
                all(one == MOST for one in passed),
            )
        )
        costs = asyncio.run(_costs(Path(name)))
    report.details["costs_us"] = costs
    for title, bound in (
        ("one window, in memory", Bound(100, "at most")),
        ("three windows, in memory", Bound(100, "at most")),
        ("nothing limits it", None),
        ("one window, in Redis (waiting for it included)", None),
    ):
        report.rows.append(
            row(f"what counting adds to a request, median: {title}", costs[title], "µs", bound=bound)
        )
    report.finish(options.json)


@dataclass(frozen=True, slots=True)
class Exactness:
    """passed: of all requests. by_server: of these. statuses: of all. latency_ms: median."""

    passed: int
    by_server: dict[str, int]
    statuses: dict[int, int]
    latency_ms: float


def exactness(folder: Path) -> Exactness:
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(folder))
        settings = {
            "VOICEFORGE_LIMITS__URL": redis.url,
            "VOICEFORGE_TIERS": json.dumps({"bench": {"requests_per_minute": MOST}}),
            "VOICEFORGE_AUTH__REQUIRED": "true",
        }
        env = environment(folder / "data", **settings)
        key = _key(env)
        servers = [stack.enter_context(_serving(env)) for _ in range(2)]

        def client(number: int) -> list[tuple[int, int, float]]:
            answers = []
            with httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=60) as http:
                for _ in range(ASKED_EACH):
                    began = time.perf_counter()
                    status = http.get(f"{servers[number % 2]}/v1/models").status_code
                    answers.append((number % 2, status, time.perf_counter() - began))
            return answers

        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = [answer for each in pool.map(client, range(CLIENTS)) for answer in each]
    passed = [server for server, status, _ in answers if status == 200]
    return Exactness(
        passed=len(passed),
        by_server={str(server): count for server, count in Counter(passed).items()},
        statuses=dict(Counter(status for _, status, _ in answers)),
        latency_ms=median([seconds * 1000 for _, _, seconds in answers]),
    )


def _key(env: dict[str, str]) -> str:
    subprocess.run([*voiceforge(), "db", "upgrade"], env=env, check=True, capture_output=True)
    command = [*voiceforge(), "keys", "create", "bench", "--role", "service", "--tier", "bench", "--json"]
    made = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return str(json.loads(made.stdout)["key"])


@contextmanager
def _serving(env: dict[str, str]) -> Iterator[str]:
    with subprocess.Popen(
        [*voiceforge(), "serve", "--port", "0"],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[3]
            deadline = time.monotonic() + _START_S
            while httpx.get(f"{url}/health/ready").status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()


async def _costs(folder: Path) -> dict[str, float]:
    tiers = Tiers({"wide": Tier(requests_per_minute=10_000_000), "open": Tier()})
    one = Caller("acme", Role.MEMBER, scopes_of(Role.MEMBER, "acme"), key_id="key-1", tier="wide")
    three = Caller("acme", one.role, one.scopes, key_id="key-1", tier="wide", key_tier="wide")
    nobody = Caller("acme", one.role, one.scopes, key_id="key-1", tier="open")
    with redis_server(folder) as redis:
        shared = RedisLimiter(redis.url, prefix="bench", timeout_s=5.0)
        bare = await _median_us(_nothing, one)
        found = {
            "one window, in memory": await _added_us(tiers, MemoryLimiter(), one, None, bare),
            "three windows, in memory": await _added_us(tiers, MemoryLimiter(), three, 10_000_000, bare),
            "nothing limits it": await _added_us(tiers, MemoryLimiter(), nobody, None, bare),
            "one window, in Redis (waiting for it included)": await _added_us(tiers, shared, one, None, bare),
        }
        await shared.close()
    return found


async def _added_us(
    tiers: Tiers, limiter: Limiter, caller: Caller, per_address: int | None, bare_us: float
) -> float:
    limits = Limits(tiers, limiter, Metrics("0"), per_address=per_address)
    app = RateLimits(_nothing, limits, ErrorReplies((NativeErrors(),)), {})
    return await _median_us(app, caller) - bare_us


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


async def _median_us(app: Any, caller: Caller) -> float:
    async def send(message: Any) -> None:
        return

    took = []
    for _ in range(_CALLS):
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/v1/models",
            "headers": [],
            "client": ("192.0.2.1", 5),
            CALLER: caller,
        }
        began = time.perf_counter_ns()
        await app(scope, None, send)
        took.append((time.perf_counter_ns() - began) / 1000)
    return median(took)


if __name__ == "__main__":
    main()
