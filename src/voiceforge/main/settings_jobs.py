"""Settings of jobs: who works on them, how long what they leave is kept, and who is told."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import ByteSize, Field, SecretStr, field_validator

from voiceforge.infra.webhooks.signing import key_of
from voiceforge.main.settings_values import Names, Section

JOBS_AT_ONCE = 4
"""In a process that works on jobs, where nothing else is said."""

_BROKERS = ("redis", "rediss", "amqp", "amqps")


class JobSettings(Section):
    """Transcriptions that are worked on in their own time."""

    workers: int | None = Field(
        default=None,
        ge=0,
        le=256,
        examples=[4],
        description="Jobs that each process works on at a time; 0 leaves them to other processes. Unset: 4, "
        "but none in `voiceforge serve` where `jobs.broker_url` is set.",
    )
    broker_url: SecretStr | None = Field(
        default=None,
        examples=["redis://:password@redis.example:6379/1"],
        description="Redis or RabbitMQ (amqp://) that tells `voiceforge worker` processes of jobs; unset: "
        "the server works on them itself.",
    )
    lease_s: float = Field(
        default=30.0,
        ge=1,
        le=3600,
        description="A worker that was not heard of for so long is taken for dead, and its job goes on "
        "elsewhere.",
    )
    heartbeat_s: float = Field(default=5.0, gt=0, le=600, description="How often a worker is heard of.")
    max_attempts: int = Field(
        default=5,
        ge=1,
        le=100,
        description="Attempts in a row that may end without having brought a job further.",
    )
    retry_delay_s: float = Field(
        default=2.0,
        ge=0,
        le=3600,
        description="Before the second attempt; doubled for each further one, up to ten minutes.",
    )

    @field_validator("broker_url")
    @classmethod
    def _is_broker(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parts = urlsplit(value.get_secret_value())
            if parts.scheme not in _BROKERS or not parts.hostname:
                raise ValueError("should be a redis://, rediss://, amqp:// or amqps:// address")
        return value


class UploadSettings(Section):
    """Uploads that come in pieces and are taken up again where they broke off."""

    expire_s: float = Field(
        default=86_400.0,
        ge=60,
        le=30 * 86_400,
        description="Seconds from its beginning until an upload is removed, finished or not.",
    )


class RetentionSettings(Section):
    """How long what was transcribed is kept. A request may wish a shorter time, never a longer one."""

    audio_s: float | None = Field(
        default=None,
        ge=0,
        examples=[86_400.0],
        description="Recordings of jobs, seconds from the end of the job; unset: until somebody erases them.",
    )
    text_s: float | None = Field(
        default=None,
        ge=0,
        examples=[2_592_000.0],
        description="Transcripts of jobs, likewise.",
    )
    fetch_s: float = Field(
        default=3600.0,
        ge=1,
        le=86_400,
        description="How long the transcript of a job with `retention=none` can be fetched.",
    )
    memory_bytes: ByteSize = Field(
        default=ByteSize(64 * 1024**2),
        gt=0,
        description="Largest upload with `retention=none` that is answered at once: it stays in memory.",
    )
    events_s: float = Field(
        default=7 * 86_400.0,
        ge=86_400,
        description="Events of single chunks, seconds from the end of their job; who watches it later gets "
        "its text at once.",
    )
    audit_s: float | None = Field(
        default=None,
        ge=86_400,
        examples=[31_536_000.0],
        description="Entries of the audit log; unset: for good.",
    )
    orphan_age_s: float = Field(
        default=86_400.0,
        ge=3600,
        description="Audio and temporary files that belong to nothing are removed when they are older.",
    )


class WebhookSettings(Section):
    """Telling other servers what became of a job."""

    workers: int = Field(
        default=16,
        ge=0,
        le=1000,
        description="Events that each server process sends at a time; 0 leaves them to other processes.",
    )
    per_host: int = Field(default=4, ge=1, le=1000, description="Of them to one host.")
    timeout_s: float = Field(
        default=10.0, gt=0, le=60, description="A receiver that has not answered for so long is asked later."
    )
    log_s: float = Field(
        default=30 * 86_400.0,
        ge=86_400,
        description="How long deliveries that are over are listed, with their log, and can be replayed.",
    )
    allow_hosts: Names = Field(
        default=(), description="Exact host names or addresses of receivers that may lie in private networks."
    )
    callback_secret: SecretStr | None = Field(
        default=None,
        examples=["whsec_bm90LWEtc2VjcmV0LWJ1dC1hbi1leGFtcGxlLW9mLW9uZQ=="],
        description="Signs what is sent to a request's `callback_url`; unset: a secret is made, which "
        "`POST /v1/webhooks/callbacks/rotate` tells.",
    )

    @field_validator("callback_secret")
    @classmethod
    def _is_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            key_of(value.get_secret_value())
        return value
