"""Wires what works on jobs: database, store, queue, workers."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from voiceforge.api.deepgram_compat import callbacks as deepgram
from voiceforge.errors import DependencyMissing, VoiceForgeError
from voiceforge.infra.db.database import Database
from voiceforge.infra.db.migrate import Migrations
from voiceforge.infra.db.records import Retention
from voiceforge.infra.jobqueue.embedded import EmbeddedQueue
from voiceforge.infra.webhooks.http import HttpWebhookSender
from voiceforge.main.audit import build_audit, note_start
from voiceforge.main.authentication import add_first_key, build_authentication, build_keys
from voiceforge.main.blob_store import open_blobs
from voiceforge.main.build import check_url, url_fetcher
from voiceforge.main.database import open_database
from voiceforge.main.limits import tiers_of
from voiceforge.main.people import or_told, people_if_possible
from voiceforge.main.request_settings import temp_dir, transcribe_defaults
from voiceforge.main.settings import Settings
from voiceforge.main.settings_jobs import JOBS_AT_ONCE
from voiceforge.services.batches import Batches
from voiceforge.services.chores import Chore, Chores, OwnChores
from voiceforge.services.job_intake import JobIntake
from voiceforge.services.job_news import JobNews
from voiceforge.services.job_room_left import RoomLeft
from voiceforge.services.job_rules import RunRules
from voiceforge.services.job_runner import JobRunner
from voiceforge.services.job_sweep import JobSweep, Workplace
from voiceforge.services.job_vitals import JobVitals
from voiceforge.services.job_watch import JobWatch
from voiceforge.services.job_workers import JobWorkers
from voiceforge.services.jobs import Jobs
from voiceforge.services.ledger import Ledger
from voiceforge.services.leftovers import Leftovers
from voiceforge.services.old_news import OldNews
from voiceforge.services.old_sessions import OldSessions
from voiceforge.services.personal_data import PersonalData
from voiceforge.services.refused_tries import RefusedTries
from voiceforge.services.retention import RetentionSweep
from voiceforge.services.stream_keeper import StreamKeeper
from voiceforge.services.tiers import Tiers
from voiceforge.services.uploads import Uploads
from voiceforge.services.usage import Prices, Usage
from voiceforge.services.webhook_delivery import DeliveryRules, WebhookDelivery
from voiceforge.services.webhook_workers import WebhookWorkers
from voiceforge.services.webhooks import Webhooks
from voiceforge.speech.engines.device import usable_cores
from voiceforge.telemetry.logger import Logger

if TYPE_CHECKING:
    from voiceforge.infra.blobs.base import Blobs
    from voiceforge.infra.jobqueue.base import JobQueue
    from voiceforge.services.audit import Audit
    from voiceforge.services.authentication import Authentication
    from voiceforge.services.container import Services
    from voiceforge.services.keys import Keys
    from voiceforge.services.people import People
    from voiceforge.telemetry.metrics import Metrics

_log = Logger(__name__)

_OPENING = "the database of jobs is being opened"
_BEHIND = "the database of jobs is not what this program needs: run `voiceforge db upgrade`"
_AGAIN_AFTER_S = 2.0
_SLACK_S = 30.0
"""Beyond the time that sending an event may take, until whoever sends it is taken for dead."""
_SWEEP_EVERY_S = 2.0
_SWEEP_LEASE_S = 10.0
_CORES_PER_REVISER = 4
"""Utterances of live streams that are heard again take as much of a machine at most."""


@dataclass(frozen=True, slots=True)
class JobRoom:
    """Everything about jobs in one process. workers, senders: None where it leaves the work to others."""

    settings: Settings
    intake: JobIntake
    jobs: Jobs
    webhooks: Webhooks
    uploads: Uploads
    database: Database
    blobs: Blobs
    queue: JobQueue
    news: JobNews
    runner: JobRunner
    sweep: JobSweep
    workers: JobWorkers | None
    senders: WebhookWorkers | None
    chores: Chores
    own_chores: OwnChores
    vitals: JobVitals
    stream_keeper: StreamKeeper | None
    ledger: Ledger
    usage: Usage
    authentication: Authentication
    people: People | None
    keys: Keys
    audit: Audit
    personal_data: PersonalData
    refused: RefusedTries

    def furnish(self, services: Services) -> Services:
        """The same ones, and those of jobs."""
        watch = JobWatch(self.database, self.jobs)
        return replace(
            services,
            jobs=self.jobs,
            job_watch=watch,
            batches=Batches(self.database, self.intake, self.jobs, self.news),
            webhooks=self.webhooks,
            uploads=self.uploads,
            ledger=self.ledger,
            usage=self.usage,
            authentication=self.authentication,
            people=or_told(self.people),
            keys=self.keys,
            audit=self.audit,
            personal_data=self.personal_data,
        )

    async def run(self) -> None:
        """Bring the database up to date, then work, until cancelled. Meanwhile what needs no database."""
        async with asyncio.TaskGroup() as group:
            for work in (self.vitals, self.own_chores, self.ledger):
                group.create_task(work.run())
            await self.open()
            await self.work()

    async def open(self) -> None:
        """Until the database can be used, and holds the key that the settings want in it."""
        self.database.refuse(_OPENING, soon=True)
        while not await self._usable():  # noqa: ASYNC110 - nothing would tell us
            await asyncio.sleep(_AGAIN_AFTER_S)
        self.database.refuse(None)
        await self._note_start()
        await add_first_key(self.settings, self.keys)

    async def _note_start(self) -> None:
        try:
            await note_start(self.settings, self.audit)
        except VoiceForgeError as error:
            _log.warning("start not noted in the audit log", problem=error.message)

    async def work(self) -> None:
        """Until cancelled: on jobs, where this process does, and in turn at what comes round."""
        async with asyncio.TaskGroup() as group:
            for work in (self.workers, self.senders, self.chores):
                if work is not None:
                    group.create_task(work.run())

    async def _usable(self) -> bool:
        """Upgrade our own database; others are upgraded by their owners, who may make a copy first."""
        with_own_pool = open_database(self.settings)
        try:
            migrations = Migrations(with_own_pool)
            if await migrations.is_current():
                return True
            if self.settings.database.url is not None:
                self.database.refuse(_BEHIND)
                _log.error("the database needs an upgrade")
                return False
            await migrations.upgrade()
        except VoiceForgeError as error:
            self.database.refuse(error.message)
            _log.error("no database for jobs", problem=error.message)
            return False
        finally:
            await with_own_pool.close()
        return True

    async def close(self) -> None:
        if self.stream_keeper is not None:
            await self.stream_keeper.close()
        await self.authentication.close()
        await self.ledger.close()
        if self.people is not None:
            await self.people.close()
        with contextlib.suppress(VoiceForgeError):
            await self.refused.tell()
        await self.queue.close()
        await self.blobs.close()
        await self.database.close()


def build_jobs(settings: Settings, services: Services, *, told_by_broker: bool = False) -> JobRoom:
    """Nothing is opened yet.

    Args:
        told_by_broker: this process takes its jobs from there, and does not look for any.

    Raises:
        InvalidRequest, DependencyMissing
    """
    database, blobs = open_database(settings), open_blobs(settings)
    database.refuse(_OPENING, soon=True)
    # Of webhooks only this process is told: others look, and a slow receiver shall not keep a worker of jobs.
    bell = EmbeddedQueue()
    broker = settings.jobs.broker_url
    queue = bell if broker is None else _celery(broker.get_secret_value(), services.metrics)
    wish = settings.jobs
    rules = RunRules(
        lease_s=wish.lease_s,
        heartbeat_s=wish.heartbeat_s,
        max_attempts=wish.max_attempts,
        backoff_s=wish.retry_delay_s,
    )
    news = JobNews(bell)
    sender = HttpWebhookSender(
        timeout_s=settings.webhooks.timeout_s, allow_hosts=settings.webhooks.allow_hosts
    )
    secret = settings.webhooks.callback_secret
    webhooks = Webhooks(database=database, sender=sender, queue=bell, fixed_signer=secret is not None)
    tiers = services.limits.tiers if services.limits is not None else Tiers(tiers_of(settings.tiers))
    intake = JobIntake(
        database=database,
        blobs=blobs,
        queue=queue,
        transcriptions=services.transcriptions,
        news=news,
        check_url=partial(check_url, settings),
        check_callback=webhooks.check_callback,
        retention=Retention(settings.retention.audio_s, settings.retention.text_s),
        room_left=RoomLeft(tiers),
    )
    jobs = Jobs(database=database, blobs=blobs, queue=queue, intake=intake, news=news)
    retention = RetentionSweep(
        database=database,
        blobs=blobs,
        jobs=jobs,
        orphan_age_s=settings.retention.orphan_age_s,
    )
    old_news = OldNews(
        database=database,
        events_s=settings.retention.events_s,
        deliveries_s=settings.webhooks.log_s,
    )
    leftovers = Leftovers(temp_dir=temp_dir(settings), blobs=blobs, age_s=settings.retention.orphan_age_s)
    workplace = Workplace.here()
    runner = JobRunner(
        database=database,
        blobs=blobs,
        transcriptions=services.transcriptions,
        fetcher=url_fetcher(settings),
        news=news,
        temp_dir=temp_dir(settings),
        worker=str(workplace),
        rules=rules,
        observer=services.metrics,
    )
    sweep = JobSweep(
        database=database,
        queue=queue,
        news=news,
        rules=rules,
        workplace=workplace,
        observer=services.metrics,
    )
    at_once = wish.workers
    if at_once is None:
        at_once = JOBS_AT_ONCE if broker is None else 0
    workers = JobWorkers(runner, bell, sweep, count=at_once) if at_once and not told_by_broker else None
    lost = Chore("lost_jobs", _SWEEP_EVERY_S, sweep.run, lease_s=_SWEEP_LEASE_S)
    uploads = Uploads(
        database=database,
        folder=settings.data_dir / "uploads",
        temp_dir=temp_dir(settings),
        max_bytes=int(settings.server.max_upload_bytes),
        expire_s=settings.uploads.expire_s,
    )
    wished = settings.usage
    usage = Usage(database, Prices(wished.price_per_minute, wished.currency), keep_s=wished.rows_s)
    refused = RefusedTries(database)
    audit = build_audit(settings, database)
    old_sessions = OldSessions(database)
    shared = [
        *retention.chores(),
        *old_news.chores(),
        *old_sessions.chores(),
        *uploads.chores(),
        *usage.chores(),
        *audit.chores(),
    ]
    chores = Chores(database, [*shared, lost] if broker is not None else shared)
    keeper = _stream_keeper(settings, services, jobs)
    own_chores = OwnChores(
        [
            *leftovers.chores(),
            *uploads.own_chores(),
            *refused.chores(),
            *(keeper.chores() if keeper is not None else ()),
        ]
    )
    delivery = WebhookDelivery(
        database=database,
        sender=sender,
        queue=bell,
        workplace=workplace,
        metrics=services.metrics,
        rules=DeliveryRules(settings.webhooks.timeout_s + _SLACK_S, settings.webhooks.per_host),
        callback_secret=secret.get_secret_value() if secret is not None else None,
        shapes={
            deepgram.SURFACE: deepgram.DeepgramCallbacks(
                transcribe_defaults(settings), lambda model: services.models.get(model).family
            )
        },
    )
    count = settings.webhooks.workers
    senders = WebhookWorkers(delivery, bell, count=count) if count else None
    people = people_if_possible(settings, database, services.limits, refused.add)
    vitals = JobVitals(
        database=database,
        blobs=blobs,
        queue=queue if broker is not None else None,
        observer=services.metrics,
    )
    services.health.watch(vitals.checks)
    return JobRoom(
        settings=settings,
        intake=intake,
        jobs=jobs,
        webhooks=webhooks,
        uploads=uploads,
        database=database,
        blobs=blobs,
        queue=queue,
        news=news,
        runner=runner,
        sweep=sweep,
        workers=workers,
        senders=senders,
        chores=chores,
        own_chores=own_chores,
        vitals=vitals,
        stream_keeper=keeper,
        authentication=build_authentication(
            settings, database, None if people is None else people.tokens, refused.add
        ),
        people=people,
        keys=build_keys(settings, database, services.models),
        ledger=_ledger(services, database, tiers),
        usage=usage,
        audit=audit,
        personal_data=PersonalData(
            database=database,
            blobs=blobs,
            jobs=jobs,
            uploads=uploads,
            retention=retention,
            results=services.results,
            keeper=keeper,
        ),
        refused=refused,
    )


def _ledger(services: Services, database: Database, tiers: Tiers) -> Ledger:
    ledger = Ledger(database, tiers, services.metrics)
    services.transcriptions.keep_accounts(ledger)
    if services.streams is not None:
        services.streams.keep_accounts(ledger)
    return ledger


def _stream_keeper(settings: Settings, services: Services, jobs: Jobs) -> StreamKeeper | None:
    if services.streams is None:
        return None
    keeper = StreamKeeper(
        folder=settings.data_dir / "streams",
        jobs=jobs,
        models=services.models,
        transcriptions=services.transcriptions,
        metrics=services.metrics,
        defaults=transcribe_defaults(settings),
        revisers=max(1, usable_cores() // _CORES_PER_REVISER),
        lost_s=settings.retention.orphan_age_s,
    )
    services.streams.keep_with(keeper)
    return keeper


def _celery(broker_url: str, metrics: Metrics) -> JobQueue:
    try:
        from voiceforge.infra.jobqueue.celery import CeleryQueue, celery_app
    except ImportError:
        raise DependencyMissing(
            "jobs.broker_url needs Celery. Run: pip install 'voiceforge[celery]'"
        ) from None
    return CeleryQueue(celery_app(broker_url), metrics)
