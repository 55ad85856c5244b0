"""The settings of every process: one frozen tree, and its fields by name.

Adding a setting is a field in one of the sections; `voiceforge.toml`, the environment, `config.example.toml`
and the table in docs/configuration.md follow from it. Where values come from is the business of
`settings_loading`, rules that span several are that of `settings_rules`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, PrivateAttr, SecretStr, field_validator
from pydantic.fields import FieldInfo

from voiceforge.main.settings_auth import AuthSettings, OidcSettings
from voiceforge.main.settings_jobs import JobSettings, RetentionSettings, UploadSettings, WebhookSettings
from voiceforge.main.settings_limits import LimitSettings, TierTable, UsageSettings
from voiceforge.main.settings_outside import (
    CacheSettings,
    DatabaseSettings,
    FetchSettings,
    SecretSettings,
    StoreSettings,
)
from voiceforge.main.settings_recognition import (
    AudioSettings,
    EngineSettings,
    ModelSettings,
    QueueSettings,
    SubtitleSettings,
    VadSettings,
)
from voiceforge.main.settings_server import ServerSettings
from voiceforge.main.settings_streams import StreamSettings
from voiceforge.main.settings_values import Section
from voiceforge.main.settings_wyoming import WyomingSettings

Profile = Literal["development", "staging", "production"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "pretty"]

ENV_PREFIX = "VOICEFORGE_"
ENV_NESTED = "__"


def data_home(environ: Mapping[str, str]) -> Path:
    """The XDG data folder of VoiceForge; relative XDG paths are ignored, as that specification says."""
    xdg = Path(environ.get("XDG_DATA_HOME", ""))
    return (xdg if xdg.is_absolute() else Path(environ.get("HOME", "~")) / ".local" / "share") / "voiceforge"


class LogSettings(Section):
    """Log lines on stderr; they never carry transcript text."""

    level: LogLevel = Field(default="info", description="Least severe lines that are written.")
    format: LogFormat = Field(default="auto", description="`auto`: pretty on a terminal, JSON elsewhere.")


class FeatureSettings(Section):
    """Parts of the server that can be switched off."""

    openai_api: bool = Field(default=True, description="The OpenAI-compatible endpoints.")
    deepgram_api: bool = Field(default=True, description="The Deepgram-compatible endpoints.")
    url_input: bool = Field(default=True, description="Transcribing from a URL.")
    streams: bool = Field(default=True, description="Live streams.")
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
    tiers: TierTable = Field(
        default={},
        description="How much whom may use, by name: tables such as `[tiers.pro]`, beside and over those "
        "built in, taken up while the server runs. See limits.md.",
    )
    auth: AuthSettings = AuthSettings()
    oidc: OidcSettings = OidcSettings()
    limits: LimitSettings = LimitSettings()
    usage: UsageSettings = UsageSettings()
    server: ServerSettings = ServerSettings()
    audio: AudioSettings = AudioSettings()
    vad: VadSettings = VadSettings()
    engine: EngineSettings = EngineSettings()
    queue: QueueSettings = QueueSettings()
    models: ModelSettings = ModelSettings()
    streams: StreamSettings = StreamSettings()
    wyoming: WyomingSettings = WyomingSettings()
    cache: CacheSettings = CacheSettings()
    database: DatabaseSettings = DatabaseSettings()
    jobs: JobSettings = JobSettings()
    store: StoreSettings = StoreSettings()
    uploads: UploadSettings = UploadSettings()
    retention: RetentionSettings = RetentionSettings()
    webhooks: WebhookSettings = WebhookSettings()
    fetch: FetchSettings = FetchSettings()
    subtitles: SubtitleSettings = SubtitleSettings()
    secrets: SecretSettings = SecretSettings()
    log: LogSettings = LogSettings()
    features: FeatureSettings = FeatureSettings()

    _file: Path | None = PrivateAttr(default=None)

    @property
    def file(self) -> Path | None:
        """The TOML file that was read."""
        return self._file

    def read_from(self, file: Path) -> Settings:
        """Itself, with its file remembered."""
        self._file = file
        return self

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
