"""The installed program at work on jobs, in processes of its own that can be killed: one server alone, or one
with workers, PostgreSQL and Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from voiceforge.errors import Unavailable
from voiceforge.infra.db import events, transcriptions
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.records import Event, Job, JobFilter, JobStatus
from voiceforge.testing.ports import free_port
from voiceforge.testing.postgres_server import PostgresServer, postgres_server
from voiceforge.testing.processes import wait_until_it_takes_signals
from voiceforge.testing.redis_server import RedisServer, redis_server
from voiceforge.testing.webhook_receiver import Message, WebhookReceiver, webhook_receiver

_TENANT = "default"
_START_S = 60.0
_EVERY_JOB = 1_000_000
_PROGRAM = (sys.executable, "-P", "-m", "voiceforge.main.cli")


@dataclass
class Outcome:
    """What became of jobs that were accepted. ends: how many were told to have completed so often. texts: by
    clip, each different one. messages: webhooks that came; ids: of these, different."""

    accepted: int
    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    ends: Counter[int] = field(default_factory=Counter)
    texts: dict[str, set[str]] = field(default_factory=dict)
    messages: int = 0
    message_ids: int = 0
    most_ids_of_a_job: int = 0


class JobCluster:
    """Made by `job_cluster`."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        receiver: WebhookReceiver,
        *,
        workers: int,
        worker_options: Sequence[str] = (),
        redis: RedisServer | None = None,
        postgres: PostgresServer | None = None,
        database_url: str,
    ) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._receiver = receiver
        self._redis = redis
        self._postgres = postgres
        self._database = Database(database_url)
        self._worker_count = workers
        self._worker_options = tuple(worker_options)
        self._port = free_port()
        self._server: subprocess.Popen[bytes] | None = None
        self._workers: list[subprocess.Popen[bytes]] = []
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._port}", timeout=30)
        self._dice = random.Random(4)  # noqa: S311
        self.kills: Counter[str] = Counter()
        self.refusals = 0

    # -- processes

    def start(self) -> None:
        if self._postgres is not None:
            self._run("db", "upgrade").wait(_START_S)
        self._server = self._run("serve", "--port", str(self._port))
        self._workers = [self._run("worker", *self._worker_options) for _ in range(self._worker_count)]

    async def ready(self) -> None:
        """Until the server has its model and its database."""
        async with asyncio.timeout(_START_S):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    asked = [await self._client.get(path) for path in ("/health/ready", "/v1/transcriptions")]
                    if {answer.status_code for answer in asked} == {200}:
                        return
                await asyncio.sleep(0.1)

    def revive(self) -> None:
        """Start again whatever ended, as a supervisor of processes would."""
        if self._server is not None and self._server.poll() is not None:
            self._server = self._run("serve", "--port", str(self._port))
        for place, worker in enumerate(self._workers):
            if worker.poll() is not None:
                self._workers[place] = self._run("worker", *self._worker_options)

    def kill_worker(self) -> None:
        worker = self._dice.choice(self._workers)
        worker.kill()
        worker.wait()
        self.kills["worker"] += 1
        self.revive()

    def kill_server(self) -> None:
        assert self._server is not None
        self._server.kill()
        self._server.wait()
        self.kills["server"] += 1
        self.revive()

    def kill_redis(self) -> None:
        """It forgets everything."""
        assert self._redis is not None
        self._redis.kill()
        self.kills["redis"] += 1
        self._redis.start()

    def kill_postgres(self) -> None:
        assert self._postgres is not None
        self._postgres.kill()
        self.kills["postgres"] += 1
        self._postgres.start()

    async def stop(self) -> list[int]:
        """End it all as a system does that shuts down; the exit codes."""
        processes = [process for process in (self._server, *self._workers) if process is not None]
        for process in processes:
            await asyncio.to_thread(wait_until_it_takes_signals, process.pid)
            process.terminate()
        codes = [await asyncio.to_thread(process.wait, 30) for process in processes]
        await self._client.aclose()
        await self._database.close()
        return codes

    def kill_all(self) -> None:
        for process in (self._server, *self._workers):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()

    def logs(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def _run(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603
                [*_PROGRAM, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=self._folder,
                env=self._environment,
            )

    @property
    def has_workers(self) -> bool:
        return self._worker_count > 0

    @property
    def broker_url(self) -> str:
        assert self._redis is not None
        return self._redis.url

    def kill_whoever_works(self) -> None:
        """All of them, wherever the jobs are worked on."""
        for worker in self._workers:
            worker.kill()
            worker.wait()
        if not self._workers:
            self.kill_server()
        self.revive()

    # -- jobs

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """A request to the server, again where it is just being started."""
        while True:
            try:
                return await self._client.request(method, path, **options)
            except httpx.TransportError:
                await asyncio.sleep(0.1)

    async def job(self, job_id: str) -> Job:
        return next(job for job in await self.jobs() if job.id == job_id)

    async def events(self, job_id: str) -> list[Event]:
        """What happened to it so far."""
        async with self._database.reading() as connection:
            return await events.of(connection, _TENANT, job_id, after=0)

    async def submit(self, number: int, clip: Path, *, callback: bool = True) -> str:
        """The id of an accepted job. As a patient client does it, with one idempotency key for all tries."""
        content = await asyncio.to_thread(clip.read_bytes)
        form = {"mode": "async", "metadata": f'{{"clip": "{clip.stem}"}}'}
        if callback:
            form["callback_url"] = self._receiver.url
        while True:
            try:
                answer = await self._client.post(
                    "/v1/transcriptions",
                    data=form,
                    files={"file": (clip.name, content)},
                    headers={"Idempotency-Key": f"job-{number}"},
                )
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 202:
                return str(answer.json()["id"])
            if answer is not None and answer.status_code != 503:
                raise AssertionError(f"{answer.status_code}: {answer.text}")
            self.refusals += 1
            await asyncio.sleep(0.3)

    async def jobs(self) -> list[Job]:
        """All there are."""
        while True:
            try:
                async with self._database.reading() as connection:
                    return await transcriptions.newest(
                        connection, _TENANT, JobFilter(), before=None, limit=_EVERY_JOB
                    )
            except Unavailable:
                await asyncio.sleep(0.2)

    async def all_over(self, count: int, timeout_s: float) -> None:
        """Until `count` jobs have ended, in whatever way.

        Raises:
            TimeoutError
        """
        async with asyncio.timeout(timeout_s):
            while await self._over() < count:
                self.revive()
                await asyncio.sleep(0.2)

    async def booked(self) -> tuple[int, float]:
        """How many recordings stand in the accounts, and how many seconds of audio."""
        answer = await self._client.get("/v1/usage")
        total = answer.raise_for_status().json()["total"]
        return total["requests"], total["audio_seconds"]

    async def outcome(self, accepted: Sequence[str]) -> Outcome:
        """Once all is over: what became of these."""
        found = Outcome(len(set(accepted)))
        by_id = {job.id: job for job in await self.jobs()}
        for job_id in accepted:
            job = by_id[job_id]
            found.statuses[job.status] += 1
            if job.error is not None:
                found.errors[job.error.code] += 1
            told = f"transcription.{JobStatus.COMPLETED}"
            ends = [event for event in await self.events(job_id) if event.type == told]
            found.ends[len(ends)] += 1
            if job.status is JobStatus.COMPLETED:
                document = (await self._client.get(f"/v1/transcriptions/{job_id}")).json()
                found.texts.setdefault(str(job.metadata["clip"]), set()).add(document["text"])
        ids: dict[str, set[str]] = {}
        for message in self._receiver.received:
            found.messages += 1
            ids.setdefault(_job_of(message), set()).add(message.id)
        found.message_ids = sum(len(ids.get(job_id, ())) for job_id in accepted)
        found.most_ids_of_a_job = max((len(found) for found in ids.values()), default=0)
        return found

    async def webhooks_arrived(self, job_ids: Sequence[str], timeout_s: float) -> None:
        """Until each of these jobs was told of.

        Raises:
            TimeoutError
        """
        wanted = set(job_ids)
        async with asyncio.timeout(timeout_s):
            while True:
                if wanted <= {_job_of(message) for message in self._receiver.received}:
                    return
                await asyncio.sleep(0.2)

    async def disturb(
        self, kills: Sequence[Callable[[], None]], *, every_s: float, until: Awaitable[object]
    ) -> None:
        """One of them after the other, again and again, until that is done.

        Between two kills at least one job is finished: one whose workers are lost over and over without
        getting on is given up.
        """
        done = asyncio.ensure_future(until)
        number = 0
        while not done.done():
            over = await self._over()
            await asyncio.wait([done], timeout=every_s)
            while not done.done() and await self._over() == over:
                await asyncio.wait([done], timeout=0.2)
            if not done.done():
                await asyncio.to_thread(kills[number % len(kills)])
                number += 1
        await done

    async def _over(self) -> int:
        return sum(job.status.is_final for job in await self.jobs())


def _job_of(message: Message) -> str:
    return str(json.loads(message.body)["data"]["id"])


@contextlib.asynccontextmanager
async def job_cluster(
    folder: Path,
    *,
    workers: int,
    worker_options: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[JobCluster]:
    """One that is started while the block runs.

    Args:
        workers: processes beside the server, told through Redis and with a PostgreSQL; 0: the server alone,
            as it comes.
        settings: environment variables.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VOICEFORGE_")}
    environment = kept | {
        "VOICEFORGE_DATA_DIR": str(folder / "data"),
        # Every job is worked on, though they are alike.
        "VOICEFORGE_CACHE__ENABLED": "false",
        "VOICEFORGE_LOG__LEVEL": "info",
        "VOICEFORGE_WEBHOOKS__ALLOW_HOSTS": '["127.0.0.1"]',
    }
    async with contextlib.AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(webhook_receiver())
        redis, postgres = None, None
        url = f"sqlite:///{folder / 'data' / 'voiceforge.db'}"
        if workers:
            (folder / "redis").mkdir()
            redis = stack.enter_context(redis_server(folder / "redis"))
            postgres = stack.enter_context(postgres_server())
            url = postgres.new_database()
            environment |= {"VOICEFORGE_DATABASE__URL": url, "VOICEFORGE_JOBS__BROKER_URL": redis.url}
        cluster = JobCluster(
            folder,
            environment | dict(settings or {}),
            receiver,
            workers=workers,
            worker_options=worker_options,
            redis=redis,
            postgres=postgres,
            database_url=url,
        )
        stack.callback(cluster.kill_all)
        cluster.start()
        await cluster.ready()
        yield cluster
