"""What was accepted is finished, once, with the same text, whatever is killed meanwhile. The full size of
this is benchmarks/chaos.py."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from voiceforge.testing.job_cluster import JobCluster, Outcome, job_cluster
from voiceforge.testing.postgres_server import has_postgres
from voiceforge.testing.redis_server import find_redis

QUICK = {"VOICEFORGE_JOBS__LEASE_S": "5", "VOICEFORGE_JOBS__HEARTBEAT_S": "1"}
MEANWHILE_S = 0.4
"""Between two submissions: they go on while things die."""
OVER_S = 240


async def undisturbed(cluster: JobCluster, clip: Path) -> Outcome:
    first = await cluster.submit(0, clip)
    await cluster.all_over(1, OVER_S)
    return await cluster.outcome([first])


async def submitted(cluster: JobCluster, clip: Path, count: int) -> list[str]:
    accepted = []
    for number in range(1, count + 1):
        accepted.append(await cluster.submit(number, clip))
        await asyncio.sleep(MEANWHILE_S)
    return accepted


def assert_nothing_lost(found: Outcome, before: Outcome, count: int) -> None:
    assert found.accepted == count
    assert dict(found.statuses) == {"completed": count}, found.errors
    assert dict(found.ends) == {1: count}
    assert found.texts == before.texts
    assert found.message_ids == count
    assert found.most_ids_of_a_job == 1


@pytest.mark.timeout(600)
async def test_workers_redis_and_postgresql_are_killed_in_turn(
    tmp_path: Path, clips: dict[str, Path]
) -> None:
    if find_redis() is None or not has_postgres():
        pytest.skip("there is no Redis or PostgreSQL server here")
    count = 40
    async with job_cluster(tmp_path, workers=2, settings=QUICK) as cluster:
        before = await undisturbed(cluster, clips["beckett"])
        _, audio_s = await cluster.booked()
        submitting = asyncio.create_task(submitted(cluster, clips["beckett"], count))
        kills = [cluster.kill_worker, cluster.kill_redis, cluster.kill_worker, cluster.kill_postgres]
        await cluster.disturb(kills, every_s=2.0, until=submitting)
        accepted = submitting.result()
        await cluster.all_over(count + 1, OVER_S)
        await cluster.webhooks_arrived(accepted, OVER_S)
        assert_nothing_lost(await cluster.outcome(accepted), before, count)
        assert await cluster.booked() == (count + 1, pytest.approx((count + 1) * audio_s, abs=0.1))
        assert min(cluster.kills.values()) >= 1
        assert await cluster.stop() == [0, 0, 0]


@pytest.mark.timeout(600)
async def test_the_server_that_does_it_all_is_killed(tmp_path: Path, clips: dict[str, Path]) -> None:
    count = 25
    async with job_cluster(tmp_path, workers=0) as cluster:
        before = await undisturbed(cluster, clips["beckett"])
        _, audio_s = await cluster.booked()
        submitting = asyncio.create_task(submitted(cluster, clips["beckett"], count))
        await cluster.disturb([cluster.kill_server], every_s=4.0, until=submitting)
        accepted = submitting.result()
        await cluster.all_over(count + 1, OVER_S)
        await cluster.ready()
        await cluster.webhooks_arrived(accepted, OVER_S)
        assert_nothing_lost(await cluster.outcome(accepted), before, count)
        assert await cluster.booked() == (count + 1, pytest.approx((count + 1) * audio_s, abs=0.1))
        assert cluster.kills["server"] >= 2
        assert await cluster.stop() == [0]
