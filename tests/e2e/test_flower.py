"""Flower, as people use it, sees our workers and what they do."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from voiceforge.testing.job_cluster import job_cluster
from voiceforge.testing.ports import free_port
from voiceforge.testing.postgres_server import has_postgres
from voiceforge.testing.redis_server import find_redis


async def test_it_shows_a_worker_and_its_task(tmp_path: Path, clips: dict[str, Path]) -> None:
    if find_redis() is None or not has_postgres() or importlib.util.find_spec("flower") is None:
        pytest.skip("there is no Redis, no PostgreSQL server or no Flower here")
    (tmp_path / "cluster").mkdir()
    async with job_cluster(tmp_path / "cluster", workers=1) as cluster:
        port = free_port()
        flower = subprocess.Popen(  # noqa: ASYNC220  # it is there at once
            [
                *(sys.executable, "-m", "celery", "--broker", cluster.broker_url),
                *("flower", "--address=127.0.0.1", f"--port={port}"),
            ],
            cwd=tmp_path,
            env=os.environ | {"FLOWER_UNAUTHENTICATED_API": "true"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
                workers = await answered(client, "/api/workers?refresh=1")
                job_id = await cluster.submit(1, clips["beckett"], callback=False)
                await cluster.all_over(1, 60)
                (task,) = (await answered(client, "/api/tasks")).values()
        finally:
            flower.terminate()
            await asyncio.to_thread(flower.wait)
    (name,) = workers
    assert name.startswith("voiceforge-")
    assert {queue["name"] for queue in workers[name]["active_queues"]} == {
        "voiceforge.interactive",
        "voiceforge.bulk",
        "voiceforge.training",
        "voiceforge.maintenance",
    }
    assert task["name"] == "voiceforge.transcription"
    assert job_id in task["args"]
    assert task["worker"] == name


async def answered(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """Once it has something to show."""
    async with asyncio.timeout(60):
        while True:
            try:
                answer = await client.get(path)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 200 and answer.json():
                return dict(answer.json())
            await asyncio.sleep(0.2)
