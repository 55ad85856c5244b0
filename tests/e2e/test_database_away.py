"""PostgreSQL is killed under a server: it says so, answers what needs no database, and goes on afterwards."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from voiceforge.testing.postgres_server import has_postgres, postgres_server

WAIT_S = 60
JOBS = "/v1/transcriptions"


def wait_until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.skipif(not has_postgres(), reason="there is no PostgreSQL server here")
def test_without_its_database_a_server_is_degraded_and_not_unready(
    start: Callable[..., subprocess.Popen[str]],
    voiceforge: Callable[..., subprocess.CompletedProcess[str]],
    clips: dict[str, Path],
) -> None:
    audio = clips["beckett"].read_bytes()
    with postgres_server() as postgres:
        settings = {"VOICEFORGE_DATABASE__URL": postgres.new_database()}
        assert voiceforge("db", "upgrade", settings=settings).returncode == 0
        process = start("serve", "--port", "0", settings=settings)
        assert process.stdout is not None
        url = process.stdout.readline().split()[3]
        with httpx.Client(base_url=url, timeout=WAIT_S) as client:

            def told(path: str, status: int = 200) -> dict[str, Any]:
                reply = client.get(path)
                assert reply.status_code == status, reply.text
                return {"status": reply.json()["status"]} | {
                    check["name"]: check["status"] for check in reply.json()["checks"]
                }

            def submit() -> httpx.Response:
                form: dict[str, Any] = {"files": {"file": audio}, "data": {"mode": "async"}}
                return client.post(JOBS, **form, headers={"Idempotency-Key": "once"})

            wait_until(lambda: client.get("/health/ready").status_code == 200)
            wait_until(lambda: told("/health").get("jobs") == "ok")
            checks = {check["name"]: check for check in client.get("/health").json()["checks"]}
            assert {"database", "store", "jobs"} <= set(checks)
            assert checks["jobs"]["data"] == {"waiting": 0, "running": 0, "oldest_s": 0.0}

            postgres.kill()
            wait_until(lambda: told("/health/ready")["database"] == "degraded")
            assert told("/health")["status"] == told("/health/ready")["status"] == "degraded"
            assert client.post(JOBS, files={"file": audio}).json()["text"]
            refused = submit()
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
            assert int(refused.headers["Retry-After"]) >= 1

            postgres.start()
            wait_until(lambda: told("/health/ready")["database"] == "ok")
            wait_until(lambda: submit().status_code == 202)
            job_id = submit().json()["id"]
            client.get(f"{JOBS}/{job_id}/events").raise_for_status()
            assert client.get(f"{JOBS}/{job_id}").json()["status"] == "completed"
            assert len(client.get(JOBS).json()["data"]) == 1
