"""Two servers and one Redis: exactly as many requests pass as may, whoever asks where."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from voiceforge.testing.redis_server import find_redis, redis_server

MOST = 100
CLIENTS = 64
ASKED_EACH = 4

Start = Callable[..., subprocess.Popen[str]]


def ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    url = process.stdout.readline().split()[3]
    deadline = time.monotonic() + 60
    while httpx.get(f"{url}/health/ready").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return url


@pytest.mark.skipif(find_redis() is None, reason="there is no Redis server here")
def test_of_64_clients_at_two_servers_exactly_a_hundred_requests_pass(
    start: Start, voiceforge: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    with redis_server(tmp_path) as redis:
        settings = {
            "VOICEFORGE_LIMITS__URL": redis.url,
            # A machine that has too much to do is no reason to count apart.
            "VOICEFORGE_LIMITS__TIMEOUT_S": "10",
            "VOICEFORGE_TIERS": json.dumps({"hundred": {"requests_per_minute": MOST}}),
            "VOICEFORGE_AUTH__REQUIRED": "true",
        }
        voiceforge("db", "upgrade", settings=settings)
        made = voiceforge("keys", "create", "many", "--tier", "hundred", "--json", settings=settings)
        key = json.loads(made.stdout)["key"]
        servers = [start("serve", "--port", "0", settings=settings) for _ in range(2)]
        urls = [ready(server) for server in servers]
        began = time.monotonic()

        def client(number: int) -> list[tuple[int, httpx.Response]]:
            with httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=60) as http:
                return [(number % 2, http.get(f"{urls[number % 2]}/v1/models")) for _ in range(ASKED_EACH)]

        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = [answer for each in pool.map(client, range(CLIENTS)) for answer in each]
        assert time.monotonic() - began < 60, "the first requests do not count any more"

    passed = Counter(server for server, answer in answers if answer.status_code == 200)
    assert passed.total() == MOST
    assert min(passed[0], passed[1]) > 0
    refused = [answer for _, answer in answers if answer.status_code != 200]
    assert {answer.status_code for answer in refused} == {429}
    assert all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in refused)
