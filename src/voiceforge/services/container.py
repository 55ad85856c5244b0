"""The services of a process, wired once and handed to its surfaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from voiceforge.services.engine_room import EngineRoom
from voiceforge.services.health import Health
from voiceforge.services.models import Models
from voiceforge.services.result_cache import ResultCache
from voiceforge.services.transcriptions import Transcriptions
from voiceforge.telemetry.metrics import Metrics

if TYPE_CHECKING:  # they bring the database with them, which commands do not need
    from voiceforge.services.audit import Audit
    from voiceforge.services.authentication import Authentication
    from voiceforge.services.batches import Batches
    from voiceforge.services.job_watch import JobWatch
    from voiceforge.services.jobs import Jobs
    from voiceforge.services.keys import Keys
    from voiceforge.services.ledger import Ledger
    from voiceforge.services.limits import Limits
    from voiceforge.services.people import People
    from voiceforge.services.personal_data import PersonalData
    from voiceforge.services.streams import Streams
    from voiceforge.services.uploads import Uploads
    from voiceforge.services.usage import Usage
    from voiceforge.services.webhooks import Webhooks


@dataclass(frozen=True, slots=True)
class Services:
    """results: None where nothing is kept. limits: None where nobody is limited. streams, jobs, job_watch,
    batches, webhooks, uploads, keys, audit, personal_data: None in processes that accept none.
    authentication: None where nobody but the configured key is known. people: None where there is no
    database; raises DependencyMissing where packages lack."""

    transcriptions: Transcriptions
    models: Models
    health: Health
    engines: EngineRoom
    metrics: Metrics
    results: ResultCache | None = None
    streams: Streams | None = None
    limits: Limits | None = None
    jobs: Jobs | None = None
    job_watch: JobWatch | None = None
    batches: Batches | None = None
    webhooks: Webhooks | None = None
    uploads: Uploads | None = None
    keys: Keys | None = None
    ledger: Ledger | None = None
    usage: Usage | None = None
    authentication: Authentication | None = None
    audit: Audit | None = None
    personal_data: PersonalData | None = None
    people: Callable[[], People] | None = None
