"""What the tables hold, as values. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)


class Rank(IntEnum):
    """How soon, among those that wait; the lower the sooner."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a transcription failed: kind and code as errors.py has them. retryable: it might go well another
    time."""

    kind: str
    code: str
    message: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Retention:
    """How long audio and text are kept after the end, in seconds; None: until somebody erases them."""

    audio_s: float | None = None
    text_s: float | None = None

    def shortened(self, wish: Retention | None) -> Retention:
        """The shorter time of both, for each."""
        if wish is None:
            return self
        return Retention(_shorter(self.audio_s, wish.audio_s), _shorter(self.text_s, wish.text_s))

    def erase_audio_at(self, ended_at: float) -> float | None:
        """Unix seconds; None: never."""
        return None if self.audio_s is None else ended_at + self.audio_s

    def erase_text_at(self, ended_at: float) -> float | None:
        """Likewise."""
        return None if self.text_s is None else ended_at + self.text_s


@dataclass(frozen=True, slots=True)
class NewJob:
    """options: of TranscribeOptions, as JSON. request_digest: of everything that was asked, where there is an
    idempotency key. One of recording_id and url is given."""

    id: str
    tenant: str
    rank: Rank
    model: str
    options: Mapping[str, Any]
    metadata: Mapping[str, Any]
    created_at: float
    recording_id: str | None = None
    url: str | None = None
    filename: str | None = None
    callback_url: str | None = None
    callback_shape: Mapping[str, Any] | None = None
    batch_id: str | None = None
    batch_index: int | None = None
    idempotency_key: str | None = None
    request_digest: str | None = None
    retention: Retention = Retention()
    user_id: str | None = None
    key_id: str | None = None
    door: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A transcription that is worked on in its own time.

    available_at: not to be taken before. attempts: those that began. done_s, duration_s: seconds of audio.
    ends_at: when it will be over, as it looks to whoever works on it; None: not known.
    """

    id: str
    tenant: str
    status: JobStatus
    rank: Rank
    model: str
    options: Mapping[str, Any]
    metadata: Mapping[str, Any]
    filename: str | None
    recording_id: str | None
    url: str | None
    callback_url: str | None
    callback_shape: Mapping[str, Any] | None
    batch_id: str | None
    batch_index: int | None
    idempotency_key: str | None
    request_digest: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    available_at: float
    attempts: int
    lease_until: float | None
    worker: str | None
    cancel_requested: bool
    done_s: float
    duration_s: float | None
    ends_at: float | None
    error: JobError | None
    retention: Retention
    audio_erased_at: float | None
    text_erased_at: float | None
    user_id: str | None = None
    key_id: str | None = None
    door: str | None = None


@dataclass(frozen=True, slots=True)
class RefusedItem:
    """An item of a batch that became no transcription, and why; kind and code as errors.py has them."""

    index: int
    kind: str
    code: str
    message: str
    field: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Recordings that were sent together. size: of its items, the refused ones among them."""

    id: str
    tenant: str
    metadata: Mapping[str, Any]
    size: int
    refused: Sequence[RefusedItem]
    callback_url: str | None
    idempotency_key: str | None
    request_digest: str | None
    created_at: float
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that is ours until `lease_until`, unless it is renewed; `token` proves it."""

    job: Job
    token: str
    lease_until: float


@dataclass(frozen=True, slots=True)
class JobProgress:
    done_s: float
    duration_s: float | None
    ends_at: float | None


@dataclass(frozen=True, slots=True)
class Recording:
    """Audio that we keep. sha256: in hexadecimal digits."""

    id: str
    tenant: str
    sha256: str
    size_bytes: int
    blob_key: str
    created_at: float


@dataclass(frozen=True, slots=True)
class Upload:
    """One that comes in pieces. offset_bytes: so much is here. metadata: the client's own, as it came.
    sha256: in hexadecimal digits, once somebody asked. writer: whose turn it is to bring more."""

    id: str
    tenant: str
    length_bytes: int
    offset_bytes: int
    metadata: str | None
    filename: str | None
    sha256: str | None
    writer: str | None
    created_at: float
    expires_at: float
    user_id: str | None = None

    @property
    def is_complete(self) -> bool:
        return self.offset_bytes == self.length_bytes


@dataclass(frozen=True, slots=True)
class Event:
    """seq: counts up over all events, not without holes."""

    seq: int
    id: str
    tenant: str
    transcription_id: str | None
    batch_id: str | None
    type: str
    data: Mapping[str, Any]
    created_at: float


@dataclass(frozen=True, slots=True)
class JobFilter:
    """None: whatever. created_after, created_before: Unix seconds, exclusive."""

    status: JobStatus | None = None
    batch_id: str | None = None
    model: str | None = None
    created_after: float | None = None
    created_before: float | None = None


@dataclass(frozen=True, slots=True)
class WebhookSecret:
    """secret: as `whsec_…`. until: signs no longer; None: for good."""

    secret: str
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Webhook:
    """url: None for the one that signs the callbacks of a tenant's requests. secrets: the newest first."""

    id: str
    tenant: str
    url: str | None
    event_types: tuple[str, ...]
    secrets: tuple[WebhookSecret, ...]
    enabled: bool
    created_at: float


class DeliveryStatus(StrEnum):
    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DeliveryAttempt:
    """status: what the receiver answered; None: it did not. error: a code; None: it took it."""

    at: float
    status: int | None
    error: str | None
    took_s: float | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one receiver. attempts: those that began since it was last to be sent anew.
    available_at: of the next one; while `is_sending`, when whoever sends it is taken for dead."""

    id: str
    tenant: str
    webhook_id: str
    event_id: str
    event_type: str
    url: str
    host: str
    status: DeliveryStatus
    attempts: int
    available_at: float
    is_sending: bool
    log: tuple[DeliveryAttempt, ...]
    created_at: float
    finished_at: float | None


@dataclass(frozen=True, slots=True)
class DeliveryClaim:
    """A delivery that is ours to send until `until`; `token` proves it."""

    delivery: Delivery
    event: Event
    webhook: Webhook
    token: str
    until: float


def _shorter(one: float | None, other: float | None) -> float | None:
    return min((s for s in (one, other) if s is not None), default=None)
