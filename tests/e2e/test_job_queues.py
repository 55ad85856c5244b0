"""The same jobs on both queues: the one inside the server, and Celery with Redis and workers of their own."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import soundfile

from voiceforge.infra.db.records import Job, JobStatus
from voiceforge.services.samples import sample_recordings
from voiceforge.testing.job_cluster import JobCluster, job_cluster
from voiceforge.testing.ports import free_port
from voiceforge.testing.postgres_server import has_postgres
from voiceforge.testing.redis_server import find_redis

pytestmark = pytest.mark.asyncio(loop_scope="module")

WAIT_S = 60
METRICS_PORT = free_port()
SETTINGS = {
    "VOICEFORGE_JOBS__LEASE_S": "4",
    "VOICEFORGE_JOBS__HEARTBEAT_S": "0.5",
    "VOICEFORGE_JOBS__RETRY_DELAY_S": "0.2",
    "VOICEFORGE_JOBS__MAX_ATTEMPTS": "3",
    "VOICEFORGE_FETCH__ALLOW_HOSTS": '["127.0.0.1"]',
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["embedded", "celery"])
async def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[JobCluster]:
    """One job at a time, where it matters."""
    folder = tmp_path_factory.mktemp("cluster")
    if request.param == "embedded":
        async with job_cluster(
            folder, workers=0, settings=SETTINGS | {"VOICEFORGE_JOBS__WORKERS": "1"}
        ) as made:
            yield made
        return
    if find_redis() is None or not has_postgres():
        pytest.skip("there is no Redis or PostgreSQL server here")
    options = ("--concurrency", "1", "--metrics", f"127.0.0.1:{METRICS_PORT}")
    async with job_cluster(folder, workers=1, worker_options=options, settings=SETTINGS) as made:
        yield made


@pytest.fixture(scope="module")
def clip() -> Path:
    return sample_recordings()[0]


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three minutes: six chunks."""
    samples, rate_hz = soundfile.read(sample_recordings()[1])
    path = tmp_path_factory.mktemp("long") / "long.wav"
    with soundfile.SoundFile(path, "w", rate_hz, 1) as file:
        for _ in range(4):
            file.write(samples)
    return path


@dataclass
class Source:
    """A web server that gives a recording away once it has been asked `refusals` times."""

    url: str
    refusals: int = 0
    asked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def serving(clip: Path) -> Iterator[Source]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with source.lock:
                source.asked += 1
                refused = source.asked <= source.refusals
            self.send_response(503 if refused else 200)
            content = b"" if refused else clip.read_bytes()
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    source = Source(f"http://127.0.0.1:{server.server_port}/clip.wav")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield source
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def submit(cluster: JobCluster, clip: Path | None = None, **fields: str) -> str:
    form: dict[str, Any] = {name: (None, text) for name, text in {"mode": "async", **fields}.items()}
    if clip is not None:
        form["file"] = (clip.name, await asyncio.to_thread(clip.read_bytes))
    answer = await cluster.ask("POST", "/v1/transcriptions", files=form)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def until(cluster: JobCluster, job_id: str, condition: Callable[[Job], bool]) -> Job:
    async with asyncio.timeout(WAIT_S):
        while True:
            job = await cluster.job(job_id)
            if condition(job):
                return job
            await asyncio.sleep(0.05)


async def over(cluster: JobCluster, job_id: str) -> Job:
    return await until(cluster, job_id, lambda job: job.status.is_final)


async def chunks(cluster: JobCluster, job_id: str) -> list[int]:
    """The numbers of those that were saved, in the order in which they were."""
    told = await cluster.events(job_id)
    return [event.data["chunk"] for event in told if event.type == "transcription.chunk"]


async def test_what_is_submitted_is_completed(cluster: JobCluster, clip: Path) -> None:
    job_id = await submit(cluster, clip)
    assert (await over(cluster, job_id)).status is JobStatus.COMPLETED
    document = (await cluster.ask("GET", f"/v1/transcriptions/{job_id}")).json()
    assert "try again" in document["text"]
    assert [event.type for event in await cluster.events(job_id)][-1] == "transcription.completed"


async def test_the_urgent_begin_first(cluster: JobCluster, clip: Path, long_clip: Path) -> None:
    first = await submit(cluster, long_clip)
    await until(cluster, first, lambda job: job.status is JobStatus.RUNNING)
    waiting = [await submit(cluster, clip, priority=name) for name in ("low", "normal", "high")]
    low, normal, high = [await over(cluster, job_id) for job_id in waiting]
    assert high.started_at is not None
    assert normal.started_at is not None
    assert low.started_at is not None
    assert high.started_at < normal.started_at < low.started_at


async def test_one_that_runs_is_cancelled(cluster: JobCluster, long_clip: Path) -> None:
    job_id = await submit(cluster, long_clip)
    await until(cluster, job_id, lambda job: job.done_s > 0)
    assert (await cluster.ask("POST", f"/v1/transcriptions/{job_id}/cancel")).status_code == 200
    assert (await over(cluster, job_id)).status is JobStatus.CANCELLED
    assert (await cluster.ask("POST", f"/v1/transcriptions/{job_id}/cancel")).status_code == 409


async def test_a_job_whose_worker_is_killed_goes_on_after_its_last_chunk(
    cluster: JobCluster, long_clip: Path
) -> None:
    job_id = await submit(cluster, long_clip)
    await until(cluster, job_id, lambda job: job.done_s > 35)
    before = await chunks(cluster, job_id)
    assert before
    assert (await cluster.job(job_id)).status is JobStatus.RUNNING
    await asyncio.to_thread(cluster.kill_whoever_works)
    job = await over(cluster, job_id)
    assert job.status is JobStatus.COMPLETED
    saved = await chunks(cluster, job_id)
    assert saved == list(range(len(saved)))  # none of them twice
    assert len(saved) > len(before)
    told = [event.type for event in await cluster.events(job_id)]
    assert told.count("transcription.completed") == 1
    await cluster.ready()


async def test_what_may_go_well_another_time_is_tried_again(cluster: JobCluster, clip: Path) -> None:
    with serving(clip) as source:
        source.refusals = 2
        job_id = await submit(cluster, url=source.url)
        job = await over(cluster, job_id)
        assert (job.status, source.asked) == (JobStatus.COMPLETED, 3)
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.finished_at - job.started_at > 0.8 * (0.2 + 0.4)  # it waited longer before each attempt


async def test_what_never_goes_well_ends_with_its_reason_until_it_is_tried_again(
    cluster: JobCluster, clip: Path
) -> None:
    with serving(clip) as source:
        source.refusals = 3
        job_id = await submit(cluster, url=source.url)
        job = await over(cluster, job_id)
        assert (job.status, job.attempts, source.asked) == (JobStatus.FAILED, 3, 3)
        assert job.error is not None
        assert job.error.retryable
        answer = await cluster.ask("GET", f"/v1/transcriptions/{job_id}")
        assert answer.json()["error"]["code"] == job.error.code
        assert (await cluster.ask("POST", f"/v1/transcriptions/{job_id}/retry")).status_code == 202
        assert (await over(cluster, job_id)).status is JobStatus.COMPLETED


async def test_what_cannot_go_well_is_not_tried_again(cluster: JobCluster, tmp_path: Path) -> None:
    noise = tmp_path / "noise.wav"
    noise.write_bytes(b"no recording at all" * 100)
    job = await over(cluster, await submit(cluster, noise))
    assert (job.status, job.attempts) == (JobStatus.FAILED, 1)
    assert job.error is not None
    assert not job.error.retryable


async def test_it_is_counted_where_the_work_is_done(cluster: JobCluster, clip: Path) -> None:
    with serving(clip) as source:
        source.refusals = 1
        assert (await over(cluster, await submit(cluster, url=source.url))).status is JobStatus.COMPLETED
    path = f"http://127.0.0.1:{METRICS_PORT}/metrics" if cluster.has_workers else "/metrics"
    text = (await cluster.ask("GET", path)).text

    def count(name: str) -> float:
        return float(re.findall(rf"^voiceforge_{re.escape(name)} (\S+)$", text, re.MULTILINE)[0])

    assert count('job_duration_seconds_count{status="completed"}') >= 1
    assert count('job_retries_total{code="upstream_failed"}') >= 1
    checks = {check["name"]: check for check in (await cluster.ask("GET", "/health")).json()["checks"]}
    assert checks["database"]["status"] == checks["store"]["status"] == checks["jobs"]["status"] == "ok"
    assert ("job_queue" in checks) == cluster.has_workers
