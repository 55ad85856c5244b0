"""The settings of every process: one frozen tree, its bounds, and the rules that span several fields.

Adding a setting is a field here; `voiceforge.toml`, the environment, `config.example.toml` and the table in
docs/configuration.md follow from it. Where values come from is `settings_loading`'s business.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, SecretStr, field_validator
from pydantic.fields import FieldInfo

from voiceforge.infra.blobs.address import Encryption, parse_store_url
from voiceforge.infra.webhooks.signing import key_of

Profile = Literal["development", "staging", "production"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "pretty"]
Device = Literal["auto", "cpu", "cuda"]
Isolation = Literal["process", "thread"]

ENV_PREFIX = "VOICEFORGE_"
ENV_NESTED = "__"

# Ids that OpenAI's own server knows; clients have them compiled in.
OPENAI_MODEL_IDS = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-4o-transcribe-diarize",
)
DEFAULT_TARGET = "default"


def data_home(environ: Mapping[str, str]) -> Path:
    """The XDG data folder of VoiceForge; relative XDG paths are ignored, as that specification says."""
    xdg = Path(environ.get("XDG_DATA_HOME", ""))
    return (xdg if xdg.is_absolute() else Path(environ.get("HOME", "~")) / ".local" / "share") / "voiceforge"


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error}") from error


def _list_from_text(value: object) -> object:
    """Environment variables bring lists as text: JSON, or names between commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return _json(value)
    return [item.strip() for item in value.split(",") if item.strip()]


def _table_from_text(value: object) -> object:
    """Environment variables bring tables as text: JSON, or `name=value` pairs between commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        return _json(value)
    pairs = [item.partition("=") for item in value.split(",") if item.strip()]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError("should be a JSON object or name=value pairs between commas")
    return {name.strip(): target.strip() for name, _, target in pairs}


Names = Annotated[tuple[str, ...], BeforeValidator(_list_from_text)]
NameTable = Annotated[dict[str, str], BeforeValidator(_table_from_text)]


def _http_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("should be an http or https address")
    return value.rstrip("/")


class Section(BaseModel):
    """Frozen, and closed to names it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ServerSettings(Section):
    """The HTTP server."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(
        default=8000, ge=0, le=65_535, description="Port to listen on; 0 lets the system choose."
    )
    insecure: bool = Field(
        default=False,
        description="Allow listening beyond this machine, and the production profile, without a key.",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that answer HTTP. They share one process per model, so more of them help "
        "where answering itself is the limit, not recognition.",
    )
    grace_s: float = Field(
        default=30.0,
        ge=0,
        le=3600,
        description="Time that work in progress gets to finish when the server stops.",
    )
    max_upload_bytes: ByteSize = Field(
        default=ByteSize(2 * 1024**3), gt=0, description="Largest upload; bytes, or text such as `500MiB`."
    )


class AudioSettings(Section):
    """What is accepted as audio, and how it is prepared."""

    min_duration_s: float = Field(default=0.1, ge=0, description="Shorter recordings are refused.")
    max_duration_s: float = Field(
        default=43_200.0, gt=0, description="Longer recordings are refused (12 hours)."
    )
    normalize_peak: bool = Field(
        default=True, description="Raise quiet speech to full scale before recognition."
    )
    isolation: Isolation = Field(
        default="process",
        description="Where the server decodes recordings and finds speech in them: in processes of their "
        "own, so that a file that kills a decoder costs no other request anything, or in threads beside the "
        "rest.",
    )
    decode_timeout_s: float = Field(
        default=30.0,
        ge=1,
        le=3600,
        description="A recording of which nothing more could be decoded for so long is refused; only where "
        "it is decoded in a process of its own.",
    )


class VadSettings(Section):
    """Voice activity detection: what counts as speech."""

    threshold: float = Field(default=0.5, gt=0, lt=1, description="Speech probability that opens a region.")
    min_speech_ms: int = Field(default=100, ge=0, le=10_000, description="Shorter regions are dropped.")
    min_silence_ms: int = Field(
        default=300, ge=0, le=10_000, description="Shorter pauses do not end a region."
    )
    padding_ms: int = Field(
        default=200, ge=0, le=10_000, description="Audio kept on either side of a region."
    )


class EngineSettings(Section):
    """How models are run."""

    device: Device = Field(
        default="auto", description="Where models run; `auto` takes CUDA when it is usable."
    )
    compute_type: str = Field(
        default="auto",
        min_length=1,
        description="Number format of Whisper models, such as `int8` or `float16`.",
    )
    threads: int | None = Field(
        default=None,
        examples=[4],
        ge=1,
        le=1024,
        description="Processor cores used for recognition; unset: all this process may use.",
    )
    isolation: Isolation = Field(
        default="process",
        description="Where the server runs a model: in a process of its own, whose end costs a retry and "
        "whose memory really comes back, or in a thread beside the rest.",
    )
    silent_timeout_s: float = Field(
        default=5.0,
        ge=1,
        le=600,
        description="A model's process that has not answered for so long is ended and started again.",
    )
    batch_timeout_s: float = Field(
        default=300.0,
        ge=1,
        description="Likewise where one batch of windows has been running for so long.",
    )
    max_process_bytes: ByteSize | None = Field(
        default=None,
        gt=0,
        examples=["4GiB"],
        description="A model's process that takes more memory is started again between two batches; "
        "unset: no limit.",
    )


class QueueSettings(Section):
    """The queue in front of each model."""

    max_queued_s: float = Field(
        default=3600.0,
        gt=0,
        description="Seconds of audio that may wait per model in front of a new request, by its priority, "
        "before it is turned away.",
    )
    batch_wait_s: float = Field(
        default=0.005,
        ge=0,
        le=1,
        description="The longest a window is held back so that others can be recognised together with "
        "it; not while others are not coming.",
    )
    max_requests: int = Field(
        default=256, ge=1, description="Requests waiting or running per model before others are turned away."
    )


class ModelSettings(Section):
    """Which models are there and when they are in memory."""

    preload: Names = Field(default=(), description="Models loaded at start besides the default one.")
    aliases: NameTable = Field(
        default={},
        validate_default=True,
        description="Other names for models, added to those OpenAI uses; the target `default` is the default "
        "model, an empty target removes the name.",
    )
    idle_unload_s: float | None = Field(
        default=None,
        gt=0,
        examples=[900.0],
        description="Unload a model that nobody asked for during this time; unset: never.",
    )
    memory_budget_bytes: ByteSize | None = Field(
        default=None,
        gt=0,
        examples=["8GiB"],
        description="What all loaded models together may take; those unused for longest are unloaded to make "
        'room. Needs `engine.isolation = "process"`; unset: no limit.',
    )
    offline: bool = Field(default=False, description="Never download models; use what is installed.")
    hub_endpoint: str | None = Field(
        default=None,
        examples=["https://hub.example"],
        description="Address of the model hub or a mirror of it; unset: the public hub.",
    )

    @field_validator("aliases")
    @classmethod
    def _with_openai_ids(cls, given: dict[str, str]) -> dict[str, str]:
        merged = dict.fromkeys(OPENAI_MODEL_IDS, DEFAULT_TARGET) | given
        return {name: target for name, target in merged.items() if target}

    @field_validator("hub_endpoint")
    @classmethod
    def _is_http(cls, value: str | None) -> str | None:
        return None if value is None else _http_address(value)


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
        if value is not None:
            parts = urlsplit(value.get_secret_value())
            found = parts.path if parts.scheme == "unix" else parts.hostname
            if parts.scheme not in ("redis", "rediss", "unix") or not found:
                raise ValueError("should be a redis://, rediss:// or unix:// address")
        return value


JOBS_AT_ONCE = 4
"""In a process that works on jobs, where nothing else is said."""
_BROKERS = ("redis", "rediss", "amqp", "amqps")


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
        return None if value is None else _http_address(value)


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


class SubtitleSettings(Section):
    """The shape of srt and vtt output."""

    max_lines: int = Field(default=2, ge=1, le=10, description="Lines per cue.")
    max_line_chars: int = Field(default=42, ge=10, le=200, description="Characters per line.")
    max_chars_per_s: float = Field(
        default=20.0, ge=1, le=1000, description="Reading speed; a cue stays longer if there is room."
    )
    min_duration_s: float = Field(
        default=0.8, ge=0, le=10, description="Shortest cue, where the next one leaves room."
    )
    max_duration_s: float = Field(default=7.0, ge=0.5, le=60, description="Longest cue.")
    min_gap_s: float = Field(
        default=0.08, ge=0, le=2, description="Gap between cues (2 frames at 25 per second)."
    )


class LogSettings(Section):
    """Log lines on stderr; they never carry transcript text."""

    level: LogLevel = Field(default="info", description="Least severe lines that are written.")
    format: LogFormat = Field(default="auto", description="`auto`: pretty on a terminal, JSON elsewhere.")


class FeatureSettings(Section):
    """Parts of the server that can be switched off."""

    openai_api: bool = Field(default=True, description="The OpenAI-compatible endpoints.")
    url_input: bool = Field(default=True, description="Transcribing from a URL.")
    metrics: bool = Field(default=True, description="The Prometheus endpoint `/metrics`.")


class Settings(Section):
    """Everything a process can be told; `settings_loading.load_settings` makes it."""

    profile: Profile = Field(default="development", description="Which set of defaults applies.")
    data_dir: Path = Field(
        default_factory=lambda: data_home(os.environ),
        description="Where models and data are kept; unset: `voiceforge` in the XDG data folder.",
    )
    model: str = Field(
        default="moonshine-tiny-en",
        min_length=1,
        description="The default model; it is always loaded at start.",
    )
    api_key: SecretStr | None = Field(
        default=None,
        examples=["a-long-random-text"],
        description="Key that clients must send; needed to listen beyond this machine.",
    )
    server: ServerSettings = ServerSettings()
    audio: AudioSettings = AudioSettings()
    vad: VadSettings = VadSettings()
    engine: EngineSettings = EngineSettings()
    queue: QueueSettings = QueueSettings()
    models: ModelSettings = ModelSettings()
    cache: CacheSettings = CacheSettings()
    database: DatabaseSettings = DatabaseSettings()
    jobs: JobSettings = JobSettings()
    store: StoreSettings = StoreSettings()
    uploads: UploadSettings = UploadSettings()
    retention: RetentionSettings = RetentionSettings()
    webhooks: WebhookSettings = WebhookSettings()
    fetch: FetchSettings = FetchSettings()
    subtitles: SubtitleSettings = SubtitleSettings()
    log: LogSettings = LogSettings()
    features: FeatureSettings = FeatureSettings()

    @field_validator("data_dir")
    @classmethod
    def _expanded(cls, value: Path) -> Path:
        return value.expanduser()

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            text = value.get_secret_value()
            if not text or not all("!" <= char <= "~" for char in text):
                raise ValueError("should be at least one character, all printable ASCII without spaces")
        return value


# What a profile changes; everything else keeps its default.
PROFILE_DEFAULTS: Mapping[Profile, Mapping[str, Any]] = {
    "development": {},
    "staging": {"log": {"format": "json"}},
    "production": {"log": {"format": "json"}},
}


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section a field holds, None where it is a setting itself."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def setting_fields(
    model: type[BaseModel] = Settings, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every single setting with its path, in the order of declaration."""
    for name, field in model.model_fields.items():
        section = section_of(field)
        if section is None:
            yield (*path, name), field
        else:
            yield from setting_fields(section, (*path, name))


def env_name(path: tuple[str, ...]) -> str:
    return ENV_PREFIX + ENV_NESTED.join(path).upper()


def is_secret(field: FieldInfo) -> bool:
    return SecretStr in (field.annotation, *get_args(field.annotation))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _store_conflicts(store: StoreSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    scheme = None if store.url is None else parse_store_url(store.url).scheme
    for name, schemes in _STORES_THAT_KNOW.items():
        if getattr(store, name) is not None and scheme not in schemes:
            yield (
                (f"store.{name}", "store.url"),
                f"store.{name} is for a store.url that begins with {' or '.join(f'{s}://' for s in schemes)}",
            )
    if (store.access_key_id is None) != (store.secret_access_key is None):
        yield (
            ("store.access_key_id", "store.secret_access_key"),
            "store.access_key_id and store.secret_access_key belong together: set both, or neither",
        )
    if store.endpoint is not None and store.endpoint.startswith("http://") and not store.allow_http:
        yield (
            ("store.endpoint", "store.allow_http"),
            "store.endpoint is without TLS: use https, or set store.allow_http = true",
        )
    if store.kms_key_id is not None and store.encryption != "aws:kms":
        yield (
            ("store.kms_key_id", "store.encryption"),
            'store.kms_key_id is for store.encryption = "aws:kms"',
        )


_STORES_THAT_KNOW: Mapping[str, tuple[str, ...]] = {
    "endpoint": ("s3", "gs", "az"),
    "region": ("s3",),
    "access_key_id": ("s3", "az"),
    "secret_access_key": ("s3", "az"),
    "encryption": ("s3",),
    "kms_key_id": ("s3",),
}


def conflicts(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Rules that span several settings: the dotted names involved, and what is wrong."""
    unprotected = settings.api_key is None and not settings.server.insecure
    if unprotected and not _is_loopback(settings.server.host):
        yield (
            ("server.host", "api_key", "server.insecure"),
            f"listening on {settings.server.host} lets others in: set api_key, or server.insecure = true",
        )
    if unprotected and settings.profile == "production":
        yield (
            ("profile", "api_key", "server.insecure"),
            "the production profile needs api_key, or server.insecure = true",
        )
    if settings.server.workers > 1 and settings.engine.isolation == "thread":
        yield (
            ("server.workers", "engine.isolation"),
            'several workers would each load the models: set engine.isolation = "process"',
        )
    yield from _store_conflicts(settings.store)
    for name in ("audio", "subtitles"):
        section = getattr(settings, name)
        if section.min_duration_s >= section.max_duration_s:
            yield (
                (f"{name}.min_duration_s", f"{name}.max_duration_s"),
                f"{name}.min_duration_s ({section.min_duration_s}) should be below "
                f"{name}.max_duration_s ({section.max_duration_s})",
            )
    if settings.jobs.heartbeat_s * 2 > settings.jobs.lease_s:
        yield (
            ("jobs.heartbeat_s", "jobs.lease_s"),
            f"jobs.heartbeat_s ({settings.jobs.heartbeat_s}) should be at most half of jobs.lease_s "
            f"({settings.jobs.lease_s})",
        )
    aliases = settings.models.aliases
    for alias, target in aliases.items():
        if target in aliases:
            yield ("models.aliases",), f"alias {alias!r} points to {target!r}, which is itself an alias"
