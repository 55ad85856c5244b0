"""Settings of what lies outside the process: database, store, cache, the addresses that clients name."""

from __future__ import annotations

from pathlib import Path

from pydantic import ByteSize, Field, SecretStr, field_validator

from voiceforge.infra.blobs.address import Encryption, parse_store_url
from voiceforge.main.settings_values import Names, Section, http_address, redis_address


class DatabaseSettings(Section):
    """Where jobs and their results stand."""

    url: SecretStr | None = Field(
        default=None,
        examples=["postgresql://voiceforge:password@postgres.example/voiceforge"],
        description="PostgreSQL or SQLite; unset: a SQLite file in the data folder, which the server itself "
        "brings up to date. Any other is brought up to date by `voiceforge db upgrade`.",
    )
    pool_size: int = Field(default=8, ge=1, le=1000, description="Connections per process.")
    wait_s: float = Field(
        default=5.0,
        gt=0,
        le=60,
        description="Longest time a request waits for one of them, or for an answer.",
    )

    @field_validator("url")
    @classmethod
    def _is_known(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            scheme = value.get_secret_value().partition("://")[0].partition("+")[0]
            if scheme not in ("postgresql", "postgres", "sqlite"):
                raise ValueError("should be a postgresql:// or sqlite:// address")
        return value


class StoreSettings(Section):
    """Where recordings and results are kept."""

    url: str | None = Field(
        default=None,
        examples=["s3://recordings/voiceforge"],
        description="Object store: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`; "
        "unset: the folder `blobs` in `data_dir`.",
    )
    endpoint: str | None = Field(
        default=None,
        examples=["https://store.example"],
        description="Address of a store that is not the provider's own; unset: the provider's.",
    )
    region: str | None = Field(
        default=None,
        min_length=1,
        examples=["eu-central-1"],
        description="S3: region of the bucket; unset: as the environment says (`AWS_REGION`), else "
        "`us-east-1`.",
    )
    access_key_id: SecretStr | None = Field(
        default=None,
        examples=["an-access-key-id"],
        description="Access key for S3, for Azure the account's name; unset: as the environment says, in the "
        "provider's own variables.",
    )
    secret_access_key: SecretStr | None = Field(
        default=None,
        examples=["a-long-random-text"],
        description="Secret to it, for Azure the account's key; unset: likewise.",
    )
    path_style: bool = Field(
        default=True,
        description="S3: the bucket stands in the path of addresses, as most own servers want it, not in the "
        "host name.",
    )
    allow_http: bool = Field(default=False, description="Allow an endpoint without TLS.")
    encryption: Encryption | None = Field(
        default=None,
        examples=["aws:kms"],
        description="S3: what the store is asked to encrypt with; unset: as the bucket is set up.",
    )
    kms_key_id: str | None = Field(
        default=None,
        min_length=1,
        examples=["alias/recordings"],
        description="Key for `aws:kms`; unset: the account's own.",
    )
    timeout_s: float = Field(
        default=30.0,
        ge=0.1,
        le=600,
        description="Longest time the store may say nothing; requests are tried again within it.",
    )

    @field_validator("url")
    @classmethod
    def _is_store(cls, value: str | None) -> str | None:
        if value is not None:
            parse_store_url(value)
        return value

    @field_validator("endpoint")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        return None if value is None else http_address(value)


class CacheSettings(Section):
    """Results kept for identical requests."""

    enabled: bool = Field(default=True, description="Answer identical requests from earlier results.")
    max_bytes: ByteSize = Field(
        default=ByteSize(64 * 1024**2),
        gt=0,
        description="Memory for results in each server process, where `cache.url` is unset.",
    )
    max_entry_bytes: ByteSize = Field(
        default=ByteSize(8 * 1024**2), gt=0, description="Larger results are not kept."
    )
    ttl_s: float = Field(
        default=3600.0, gt=0, le=30 * 86_400, description="Seconds until a kept result is forgotten."
    )
    url: SecretStr | None = Field(
        default=None,
        examples=["redis://:password@redis.example:6379/0"],
        description="Redis server that keeps the results; unset: each server process keeps its own.",
    )
    timeout_s: float = Field(
        default=0.1,
        gt=0,
        le=10,
        description="Longest time a request waits for Redis; then it goes on without.",
    )

    @field_validator("url")
    @classmethod
    def _is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else redis_address(value)


class FetchSettings(Section):
    """Fetching audio from a URL that a client names."""

    max_bytes: ByteSize = Field(
        default=ByteSize(2 * 1024**3), gt=0, description="Largest download; bytes, or text such as `500MiB`."
    )
    timeout_s: float = Field(default=60.0, gt=0, le=3600, description="Longest time one download may take.")
    max_redirects: int = Field(
        default=5, ge=0, le=20, description="Redirects followed; each target is checked."
    )
    allow_hosts: Names = Field(
        default=(), description="Exact host names or addresses that may lie in private networks."
    )


class SecretSettings(Section):
    """Where secrets lie that nothing else gives. Beside that, a file can be named for each of them."""

    folder: Path | None = Field(
        default=None,
        examples=["/run/secrets"],
        description="Files called as the environment variables of secrets are, in letters of any case.",
    )
    command: Names = Field(
        default=(),
        description="Program with its arguments that prints a JSON object of such names and their values: "
        "the client of a secret manager.",
    )
    timeout_s: float = Field(default=10.0, gt=0, le=300, description="Longest time it may take.")

    @field_validator("folder")
    @classmethod
    def _expanded(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser()
